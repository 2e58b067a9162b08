// swift-tools-version: 6.2
import PackageDescription

// One module per layer; every import points down (docs/design.md, section 2).

let strict: [SwiftSetting] = [
  // The layers are generic over each other; without this none of them would be specialised in the one above. SwiftPM takes
  // unsafe flags of a package that is depended on by version since 6.2, where that package's tools version is at least 6.2
  // (Tests/Scripted/package.sh).
  .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release)),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("ExistentialAny"),
]

let tests: [SwiftSetting] = [
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("ExistentialAny"),
]

/// Optimised in debug builds too: what is tested shall take the time, not the testing.
let fastTests: [SwiftSetting] = tests + [.unsafeFlags(["-O"], .when(configuration: .debug))]

let package = Package(
  name: "lacuna",
  products: [
    .library(name: "Lacuna", targets: ["Lacuna"]),
    // With the modules whose types its signatures name. It needs no C library.
    .library(name: "BlockStores", targets: ["BlockStores", "Extents", "Bytes"]),
    .library(name: "nbdkit-lacuna-plugin", type: .dynamic, targets: ["LacunaPlugin"]),
    .executable(name: "lacuna", targets: ["LacunaCommand"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-atomics", from: "1.3.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
  ],
  targets: [
    // C libraries, one door each.
    .systemLibrary(name: "CNBDKit", pkgConfig: "nbdkit", providers: [.apt(["nbdkit-plugin-dev"])]),
    // Without pkgConfig, which would warn those who only build the product, and need no libnbd, that it is missing.
    .systemLibrary(name: "CLibNBD"),
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CISAL", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),

    // The layers, lowest first.
    .target(name: "Bytes", swiftSettings: strict),
    .target(name: "Checksums", dependencies: ["CISAL"], swiftSettings: strict),
    .target(
      name: "Devices",
      dependencies: [
        "Bytes",
        "CLinux",
        .product(name: "Atomics", package: "swift-atomics"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    .target(name: "Extents", dependencies: ["Bytes"], swiftSettings: strict),
    .target(
      name: "BlockStores",
      dependencies: ["Bytes", "Devices", "Extents", .product(name: "Atomics", package: "swift-atomics")],
      swiftSettings: strict),
    .target(
      name: "ExtentFS",
      dependencies: [
        "Bytes", "Checksums", "Devices", "Extents", .product(name: "Atomics", package: "swift-atomics"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    .target(
      name: "Lacuna",
      dependencies: [
        "BlockStores", "Bytes", "Devices", "ExtentFS", .product(name: "Atomics", package: "swift-atomics"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict),
    .target(
      name: "LacunaPlugin",
      dependencies: ["CLinux", "CNBDKit", "Lacuna", .product(name: "Logging", package: "swift-log")],
      path: "plugin/LacunaPlugin",
      swiftSettings: strict,
      linkerSettings: [
        .unsafeFlags([
          // The runtime goes into the plugin, so that it loads where there is no Swift toolchain.
          "-static-stdlib",
          // What FoundationEssentials needs, which linking it statically does not bring by itself.
          "-l_FoundationCollections", "-l_FoundationCShims",
          // Only the entry point comes out of it.
          "-Xlinker", "--version-script=\(Context.packageDirectory)/plugin/exports.map",
          // It stays loaded until the process ends: Swift's runtime cannot be unloaded, and nbdkit calls dlclose.
          "-Xlinker", "-z", "-Xlinker", "nodelete",
          // GNU's linkers warn of what FoundationEssentials refers to, and nobody here calls.
          "-use-ld=lld",
        ])
      ]),
    .executableTarget(
      name: "LacunaCommand",
      dependencies: [
        "CLinux", "Lacuna", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict,
      // It runs where there is no Swift toolchain, as the plugin does. The two libraries are parts of FoundationEssentials.
      linkerSettings: [
        .linkedLibrary("_FoundationCollections"), .linkedLibrary("_FoundationCShims"),
        .unsafeFlags(["-static-stdlib", "-use-ld=lld"]),
      ]),

    // What the tests share, and the tests: one target per module.
    .target(
      name: "LacunaTestSupport", dependencies: ["BlockStores", "Bytes", "Devices", "Extents"],
      path: "Tests/LacunaTestSupport",
      swiftSettings: fastTests),
    .testTarget(
      name: "LacunaTestSupportTests", dependencies: ["Bytes", "Devices", "LacunaTestSupport"], swiftSettings: tests),
    .testTarget(name: "ExtentsTests", dependencies: ["Extents", "LacunaTestSupport"], swiftSettings: tests),
    .testTarget(name: "BytesTests", dependencies: ["Bytes", "LacunaTestSupport"], swiftSettings: tests),
    .testTarget(name: "ChecksumsTests", dependencies: ["Checksums", "LacunaTestSupport"], swiftSettings: tests),
    .testTarget(
      name: "DevicesTests",
      dependencies: ["Devices", "LacunaTestSupport", .product(name: "SystemPackage", package: "swift-system")],
      swiftSettings: tests),
    .testTarget(
      name: "ExtentFSTests",
      dependencies: [
        "ExtentFS", "Bytes", "Checksums", "Devices", "Extents", "LacunaTestSupport",
        .product(name: "Atomics", package: "swift-atomics"), .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      // Stores of earlier versions, compressed: the tests find them beside their own source.
      exclude: ["Images"],
      swiftSettings: tests),
    .testTarget(
      name: "BlockStoresTests",
      dependencies: [
        "BlockStores", "Extents", "LacunaTestSupport", .product(name: "Atomics", package: "swift-atomics"),
      ],
      swiftSettings: tests),
    .testTarget(
      name: "LacunaTests",
      dependencies: ["Lacuna", "Bytes", "Devices", "ExtentFS", "LacunaTestSupport", "NBDTestSupport"],
      swiftSettings: tests),
    // These start a real nbdkit; the plugin's product must have been built, which a plain `swift build` does.
    .target(
      name: "NBDTestSupport", dependencies: ["Bytes", "CLibNBD"], path: "Tests/NBDTestSupport",
      swiftSettings: fastTests),
    // These run the program `lacuna`, which building the tests builds too.
    .testTarget(
      name: "CommandLineTests", dependencies: ["Bytes", "Checksums", "Lacuna", "LacunaTestSupport", "NBDTestSupport"],
      swiftSettings: tests),
    .testTarget(
      name: "NBDTests", dependencies: ["Bytes", "Checksums", "Lacuna", "LacunaTestSupport", "NBDTestSupport"],
      swiftSettings: tests),
  ]
)

// For scripts/test --quick: what runs within one process. The programs are not built, nor the tests that start them.
if Context.environment["LACUNA_QUICK"] != nil {
  package.products.removeAll { ["nbdkit-lacuna-plugin", "lacuna"].contains($0.name) }
  package.targets.removeAll { ["CommandLineTests", "LacunaCommand", "LacunaPlugin", "NBDTests"].contains($0.name) }
}

// The fuzzer's program (scripts/fuzz): built alone, because it takes sources of the tests, and only when it is asked for.
if Context.environment["LACUNA_FUZZ"] != nil {
  package.targets.removeAll { $0.isTest }
  package.targets.append(
    .executableTarget(
      name: "LacunaFuzz",
      dependencies: ["ExtentFS", "Bytes", "Checksums", "Devices", "Extents", "Lacuna", "LacunaTestSupport"],
      path: "Tests",
      sources: ["Fuzz"]
        + ["CrashShape", "CrashStore", "HostileStore", "JournalForge", "Seals"]
        .map { "ExtentFSTests/Engine/\($0).swift" },
      swiftSettings: tests))
}
