// swift-tools-version: 6.2
import PackageDescription

// A package of somebody else's, which uses the products of Lacuna. Tests/Scripted/package.sh builds and runs it: it names in
// LACUNA_REPOSITORY a git repository that has this version of Lacuna under a tag.

/// Nothing is to be had from a module that is not imported by name.
let settings: [SwiftSetting] = [.enableUpcomingFeature("MemberImportVisibility"), .treatAllWarnings(as: .error)]

let package = Package(
  name: "sample",
  dependencies: [
    .package(url: Context.environment["LACUNA_REPOSITORY"] ?? "https://example.org/lacuna", from: "0.1.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
  ],
  targets: [
    .executableTarget(
      name: "BlockStoresSample", dependencies: [.product(name: "BlockStores", package: "lacuna")],
      swiftSettings: settings),
    .executableTarget(
      name: "LacunaSample",
      dependencies: [.product(name: "Lacuna", package: "lacuna"), .product(name: "Logging", package: "swift-log")],
      swiftSettings: settings),
    // The example of README.md, as it stands there.
    .executableTarget(
      name: "ReadmeSample", dependencies: [.product(name: "Lacuna", package: "lacuna")], swiftSettings: settings),
  ]
)
