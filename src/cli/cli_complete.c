/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_complete.c - completion scripts for bash, zsh and fish, from the tables.
 *
 * What an argument may be is read off the table too: "[MODEL]" and "SRC" complete models and folders,
 * "bash|zsh|fish" the words. Names of models come from `squish list`, which prints one a line before a tab
 * when nobody looks at it. */
#include "cli/cli.h"

#include <string.h>

#define LIST_NAMES "squish list 2>/dev/null | cut -f1"

/* The words of "a|b|c" with blanks between, for shells. */
static void put_words(const char *words) {
    for (; *words; words++) putchar(*words == '|' || *words == ',' ? ' ' : *words);
}

static bool takes_model(const cli_command *k) { return strstr(k->args, "[MODEL]") || strstr(k->args, "SRC"); }
static bool takes_words(const cli_command *k) { return strchr(k->args, '|') != NULL; }

static void put_command_names(void) {
    for (int i = 0; i < CLI_COMMANDS; i++) printf("%s%s", i ? " " : "", cli_commands[i].name);
}

/* s inside single quotes of a POSIX shell; characters of `special` get a backslash. */
static void put_single(const char *s, const char *special) {
    for (; *s; s++) {
        if (*s == '\'') fputs("'\\''", stdout);
        else if (strchr(special, *s)) printf("\\%c", *s);
        else putchar(*s);
    }
}

/* ---- bash ------------------------------------------------------------------------------------ */

static void bash_value(const cli_option *o) {
    fputs("        ", stdout);
    if (o->letter) printf("-%c | ", o->letter);
    printf("--%s) ", o->name);
    if (o->kind == KIND_ENUM) fputs("_squish_words '", stdout), put_words(o->arg), putchar('\'');
    else if (o->hint == CLI_HINT_FILE) fputs("_squish_files -f", stdout);
    else if (o->hint == CLI_HINT_DIR) fputs("_squish_files -d", stdout);
    else if (o->hint == CLI_HINT_MODEL) fputs("_squish_models", stdout);
    else fputs(":", stdout); /* a number or a text: nothing to offer */
    puts("; return ;;");
}

static void bash_command(const cli_command *k) {
    printf("        %s)\n            options='", k->name);
    for (int i = 0; i < OPT_COUNT; i++)
        if (cli_option_for(&cli_options[i], (cli_command_id)(k - cli_commands)))
            printf("--%s ", cli_options[i].name);
    puts("'");
    if (takes_words(k)) fputs("            words='", stdout), put_words(k->args), puts("'");
    if (takes_model(k)) puts("            model=1");
    puts("            ;;");
}

static void bash(void) {
    puts("# bash completion of squish, made by: squish completion bash\n"
         "_squish_words() {\n"
         "    COMPREPLY=($(compgen -W \"$1\" -- \"$cur\"))\n"
         "}\n"
         "_squish_files() {\n"
         "    local IFS=$'\\n'\n"
         "    compopt -o filenames 2>/dev/null\n"
         "    COMPREPLY+=($(compgen \"$1\" -- \"$cur\"))\n"
         "}\n"
         "_squish_models() {\n"
         "    local IFS=$'\\n'\n"
         "    COMPREPLY=($(compgen -W \"$(" LIST_NAMES ")\" -- \"$cur\"))\n"
         "    _squish_files -f\n"
         "}\n"
         "_squish() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev= options= words= model=\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" -le 1 ]; then");
    fputs("        _squish_words '", stdout);
    put_command_names();
    puts(" --help --version'\n        return\n    fi\n"
         "    prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
         "    case $prev in");
    for (int i = 0; i < OPT_COUNT; i++)
        if (cli_options[i].kind != KIND_FLAG) bash_value(&cli_options[i]);
    puts("    esac\n    case ${COMP_WORDS[1]} in");
    for (int i = 0; i < CLI_COMMANDS; i++) bash_command(&cli_commands[i]);
    puts("    esac\n"
         "    case $cur in\n"
         "        -*) _squish_words \"$options\" ;;\n"
         "        *)\n"
         "            if [ -n \"$words\" ]; then _squish_words \"$words\"\n"
         "            elif [ -n \"$model\" ]; then _squish_models\n"
         "            fi\n"
         "            ;;\n"
         "    esac\n"
         "}\n"
         "complete -F _squish squish");
}

/* ---- zsh ------------------------------------------------------------------------------------- */

/* One argument of _arguments: '(-n --max-tokens)'{-n+,--max-tokens=}'[help]:N:action'. */
static void zsh_option(const cli_option *o) {
    const bool value = o->kind != KIND_FLAG;
    fputs("            ", stdout);
    if (o->kind == KIND_LIST) printf("'*--%s=", o->name);
    else if (o->letter)
        printf("'(-%c --%s)'{-%c%s,--%s%s}'", o->letter, o->name, o->letter, value ? "+" : "", o->name,
               value ? "=" : "");
    else printf("'--%s%s", o->name, value ? "=" : "");
    putchar('[');
    put_single(o->help, "[]:\\");
    putchar(']');
    if (value) {
        putchar(':');
        put_single(o->kind == KIND_ENUM ? o->name : o->arg, ":\\");
        putchar(':');
        if (o->kind == KIND_ENUM) putchar('('), put_words(o->arg), putchar(')');
        else if (o->hint == CLI_HINT_FILE) fputs("_files", stdout);
        else if (o->hint == CLI_HINT_DIR) fputs("_files -/", stdout);
        else if (o->hint == CLI_HINT_MODEL) fputs("_squish_models", stdout);
    }
    puts("' \\");
}

static void zsh_command(const cli_command *k) {
    printf("        %s)\n            _arguments -s -S \\\n", k->name);
    for (int i = 0; i < OPT_COUNT; i++)
        if (cli_option_for(&cli_options[i], (cli_command_id)(k - cli_commands))) zsh_option(&cli_options[i]);
    if (takes_words(k)) fputs("            '1:shell:(", stdout), put_words(k->args), puts(")'");
    else if (takes_model(k)) puts("            '1:model:_squish_models' '*::text:'");
    else puts("            '*::argument:'");
    puts("            ;;");
}

static void zsh(void) {
    puts("#compdef squish\n"
         "# zsh completion of squish, made by: squish completion zsh\n"
         "_squish_models() {\n"
         "    local -a names\n"
         "    names=(${(f)\"$(" LIST_NAMES ")\"})\n"
         "    (( $#names )) && compadd -a names\n"
         "    _files\n"
         "}\n"
         "_squish() {\n"
         "    local -a commands\n"
         "    if (( CURRENT == 2 )); then\n"
         "        commands=(");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        printf("            '%s:", cli_commands[i].name);
        put_single(cli_commands[i].summary, ":\\");
        puts("'");
    }
    puts("        )\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi\n"
         "    local command=$words[2]\n"
         "    shift words\n"
         "    (( CURRENT-- ))\n"
         "    case $command in");
    for (int i = 0; i < CLI_COMMANDS; i++) zsh_command(&cli_commands[i]);
    puts("    esac\n"
         "}\n"
         "if [ \"$funcstack[1]\" = _squish ]; then _squish \"$@\"; else compdef _squish squish; fi");
}

/* ---- fish ------------------------------------------------------------------------------------ */

static void fish_option(const cli_option *o) {
    fputs("complete -c squish -n '__fish_seen_subcommand_from", stdout);
    for (int i = 0; i < CLI_COMMANDS; i++)
        if (cli_option_for(o, (cli_command_id)i)) printf(" %s", cli_commands[i].name);
    printf("' -l %s", o->name);
    if (o->letter) printf(" -s %c", o->letter);
    if (o->kind == KIND_ENUM) fputs(" -xa '", stdout), put_words(o->arg), putchar('\'');
    else if (o->hint == CLI_HINT_FILE) fputs(" -rF", stdout);
    else if (o->hint == CLI_HINT_DIR) fputs(" -xa '(__fish_complete_directories)'", stdout);
    else if (o->hint == CLI_HINT_MODEL) fputs(" -rFa '(" LIST_NAMES ")'", stdout);
    else if (o->kind != KIND_FLAG) fputs(" -x", stdout);
    fputs(" -d '", stdout);
    for (const char *p = o->help; *p; p++) {
        if (*p == '\'' || *p == '\\') putchar('\\');
        putchar(*p);
    }
    puts("'");
}

static void fish(void) {
    puts("# fish completion of squish, made by: squish completion fish\n"
         "complete -c squish -f");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        const cli_command *k = &cli_commands[i];
        printf("complete -c squish -n __fish_use_subcommand -a %s -d '", k->name);
        put_single(k->summary, "");
        puts("'");
        if (takes_words(k))
            printf("complete -c squish -n '__fish_seen_subcommand_from %s' -a '", k->name),
                put_words(k->args), puts("'");
        if (takes_model(k))
            printf("complete -c squish -n '__fish_seen_subcommand_from %s' -Fa '(" LIST_NAMES ")'\n",
                   k->name);
    }
    puts("complete -c squish -n __fish_use_subcommand -l version -d 'print the version'");
    for (int i = 0; i < OPT_COUNT; i++) fish_option(&cli_options[i]);
}

int cli_completion(cli *c) {
    const char *shell = c->n_args == 1 ? c->args[0] : "";
    if (strcmp(shell, "bash") == 0) bash();
    else if (strcmp(shell, "zsh") == 0) zsh();
    else if (strcmp(shell, "fish") == 0) fish();
    else if (c->n_args == 1)
        return cli_fail_text(c, 2, "no completion for '%.40s' (bash, zsh or fish)", shell);
    else return cli_fail_text(c, 2, "completion takes one shell: bash, zsh or fish");
    return 0;
}
