#!/bin/bash
# Lacuna as a package that others depend on, by URL and version: the programs of Tests/SamplePackage are built against a tagged
# repository of the tree as it is, and run. What public signatures name is in the products. BlockStores needs no ISA-L.
#
# The build is kept in .build/package, so that only what changed is built anew.
# shellcheck disable=SC2317 # check calls the functions
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "package" git swift python3 ldd
folder=$repository/.build/package
library_version() { sed -n 's/.*current = "\([0-9.]*\)".*/\1/p' "$repository/Sources/Lacuna/LacunaVersion.swift"; }
# The tag differs from run to run, so that no cache takes what it has for what is here now.
version=$(library_version)
version=${version%.*}.$(date +%s)
export LACUNA_REPOSITORY="file://$folder/lacuna"

# copy_tree FROM TO: the files of the folder FROM that git knows or would know, also where they are not committed.
copy_tree() {
  rm -rf "$2" && mkdir -p "$2" || return
  (cd "$1" && git ls-files -z --cached --others --exclude-standard \
    | while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done | tar --create --null --files-from=-) \
    | tar --extract --directory="$2"
}

make_repository() {
  copy_tree "$repository" "$folder/lacuna" || return
  cd "$folder/lacuna" && git init --quiet && git add --all \
    && git -c user.name=test -c user.email=test@localhost commit --quiet --message=tree && git tag "$version"
}

# in_sample COMMAND...: in the folder of the sample.
in_sample() { (cd "$folder/sample" && timeout 500 "$@" </dev/null); }
# swift build, for a debugger; what it remembers of versions is forgotten, since theirs are of today only.
build() {
  in_sample swift build --scratch-path "$folder/build" --security-path "$work/security" --product "$1"
}

check "the tree makes a repository with a tag" make_repository || finish
check "the sample is copied" copy_tree "$repository/Tests/SamplePackage" "$folder/sample" || finish
rm -rf "$folder/build/debug/Checksums.build"
check "SwiftPM takes version $version by its URL" \
  in_sample swift package --scratch-path "$folder/build" --security-path "$work/security" update || finish
check "the sample of BlockStores builds" build BlockStoresSample || finish
check_equal "which builds neither the checksums nor their C library" "" \
  "$(find "$folder/build/debug/" -path '*/Checksums.build/*.o')"
check "the sample of Lacuna builds" build LacunaSample || finish
# shellcheck disable=SC2016 # backticks are text here
check_equal "the example of README.md is that of the sample" "$(cat "$folder/sample/Sources/ReadmeSample/main.swift")" \
  "$(awk '/^import Lacuna$/ { shows = 1 } /^```$/ { shows = 0 } shows' "$repository/README.md")"
check "the example of README.md builds" build ReadmeSample || finish
run_readme_sample() { (cd "$work" && timeout 60 "$folder/build/debug/ReadmeSample" 2>&1); }
check_equal "it prints what README.md says" before "$(run_readme_sample)"

check_equal "the sample of BlockStores does what it says" "file: after , clone: before
0..<1073741824: hole
1073741824..<1073741830: data
blocks 262144..<262145 are at 1, shared: false
own: kept in an array
own: a file has at most 1048576 bytes" "$(timeout 60 "$folder/build/debug/BlockStoresSample" 2>&1)"
check_equal "the sample of Lacuna does what it says" "snapshots: [\"vm1@monday\"]
vm1: after , vm1@monday: before
readOnly: volume 'vm1@monday' is read-only
1048576 bytes from 0 on: hole
4096 bytes from 1048576 on: data
1044480 bytes from 1052672 on: hole
closed: volume 'vm1': the store was closed
vm1: 1073741824 bytes, 4096 mapped, 0 of them shared
vm1: after 
findings: 0, version $(library_version)" "$(timeout 60 "$folder/build/debug/LacunaSample" "$work/lacuna.sample" 2>&1)"

# isal_libraries PROGRAM: how many of its libraries are ISA-L.
isal_libraries() { ldd "$folder/build/debug/$1" | grep -c libisal; }
check_equal "the sample of Lacuna is linked to ISA-L" 1 "$(isal_libraries LacunaSample)"
check_equal "the sample of BlockStores is not" 0 "$(isal_libraries BlockStoresSample)"

check "public signatures name types of their product's modules alone" \
  python3 "$scripted_folder/public_imports.py" "$folder/lacuna"
finish
