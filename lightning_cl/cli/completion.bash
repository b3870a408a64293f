# bash completion for lightning-cl; made by `lightning-cl completion bash`
_lightning_cl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} names="" files="" before=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "@commands@ --help --version" -- "$cur"))
        return
    fi
    if [[ $cur == "=" ]]; then
        cur=""
    elif [[ $prev == "=" ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    [[ $prev == -* || $COMP_CWORD -eq 2 ]] || prev=""  # a value may be called as a command is
    case $prev in
@cases@
        *)
            case ${COMP_WORDS[1]} in
                bench) names="@bench@ @options@" ;;
                compare) names="@compare@ @options@" ;;
                sweep) names="@sweep@ @options@" ;;
                list | completion | reproduce) ;;
                *) names="@options@" ;;
            esac
            [[ $cur == -* ]] || files=yes
            ;;
    esac
    if [[ $prev == --methods && $cur == *,* ]]; then
        before=${cur%,*},
        cur=${cur##*,}
        files=""
    fi
    COMPREPLY=($(compgen -P "$before" -W "$names" -- "$cur"))
    if [[ -n $files ]]; then
        COMPREPLY+=($(compgen -f -- "$cur"))
        compopt -o filenames 2> /dev/null
    fi
    return 0
}
complete -F _lightning_cl lightning-cl
