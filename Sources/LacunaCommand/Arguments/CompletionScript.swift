/// The completion scripts that the parser generates, where they need more. `Tests/Scripted/completion.sh` notices where the parser's come
/// to differ from what is looked for here.
enum CompletionScript {
  /// The same script with what it needs more; other text as it is.
  static func amended(_ text: String) -> String {
    if text.hasPrefix("#!/bin/bash\n"), text.hasSuffix(bashLastLine) {
      return text.dropLast(bashLastLine.count)
        .replacing("    1)\n        __lacuna_add_completions -f\n", with: "    1)\n        __lacuna_add_stores\n")
        + bashFunctions
    }
    if text.hasPrefix("#compdef lacuna\n") {
      return text.replacing(":store:_files'", with: ":store:_files -g \"*(^=)\"'")
    }
    if text.hasPrefix("function __lacuna_") {
      return fishFunction + text.replacing("' -F\n", with: "' -fka '(__lacuna_stores)'\n")
    }
    return text
  }

  private static let bashLastLine = "complete -o filenames -F _lacuna lacuna"

  /// Files for a store, without the sockets that lie beside one.
  ///
  /// And whole names: bash takes an `@` for the end of a word (COMP_WORDBREAKS), and offers nothing after it. The word is put together
  /// again, and of what is found for it, the part is taken away that the command line has already. Lines with quotes and the like are
  /// left as they are.
  private static let bashFunctions = #"""
    __lacuna_add_stores() {
        __lacuna_add_completions -f
        local -i index
        for index in "${!COMPREPLY[@]}"; do
            [[ -S "${COMPREPLY[index]}" ]] && unset "COMPREPLY[index]"
        done
    }

    _lacuna_whole_names() {
        local line="${COMP_LINE:0:COMP_POINT}"
        if [[ "${line}" != *@* || "${line}" = *[\'\"\\\$\`\;\|\&\<\>\(\)]* ]]; then
            _lacuna "${@}"
            return
        fi
        local -a COMP_WORDS
        IFS=$' \t\n' read -ra COMP_WORDS <<<"${line}"
        [[ "${line}" = *[[:space:]] ]] && COMP_WORDS+=('')
        local -i COMP_CWORD="$((${#COMP_WORDS[@]} - 1))"
        local word="${COMP_WORDS[COMP_CWORD]}" COMP_LINE="${line}"
        _lacuna "${1}" "${word}" "${COMP_WORDS[COMP_CWORD - 1]}"
        local head="${word%"${2}"}" reply
        COMPREPLY=("${COMPREPLY[@]#"${head}"}")
        # Names need no backslashes; files keep them.
        for reply in "${COMPREPLY[@]}"; do
            [[ "${word}" != *@* || "${reply}" = *[^[:alnum:]._/@-]* || -e "${head}${reply}" ]] && return
        done
        compopt +o filenames 2>/dev/null
    }

    complete -o filenames -F _lacuna_whole_names lacuna
    """#

  private static let fishFunction = #"""
    function __lacuna_stores
        for path in (__fish_complete_path (commandline -ct))
            test -S (string split -m 1 -f 1 \t -- $path); or printf '%s\n' $path
        end
    end


    """#
}
