/// The completion scripts that the parser generates, where they need more.
enum CompletionScript {
  private static let lastLine = "complete -o filenames -F _lacuna lacuna"

  /// Bash takes an `@` for the end of a word (COMP_WORDBREAKS), and offers nothing behind it: the word is put together again, and of what
  /// is found for it, the part is taken away that the command line has already. Lines with quotes and the like are left as they are.
  private static let wholeNames = #"""
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

  /// The same script with what it needs more; other text as it is.
  static func amended(_ text: String) -> String {
    guard text.hasPrefix("#!/bin/bash\n"), text.hasSuffix(lastLine) else { return text }
    return text.dropLast(lastLine.count) + wholeNames
  }
}
