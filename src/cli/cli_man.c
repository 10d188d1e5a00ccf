/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_man.c - the manual as an mdoc(7) page, made from the tables of commands, options and chat commands. */
#include "cli/cli_chat.h"

#include <string.h>

/* Text that is not a macro line: backslashes and hyphens are made literal, a leading dot or quote harmless.
 */
static void put(const char *s) {
    for (; *s; s++) {
        if (*s == '\\') fputs("\\e", stdout);
        else if (*s == '-') fputs("\\-", stdout);
        else putchar(*s);
    }
}

/* One line of text. Sentences begin on lines of their own, so that the formatter spaces them. */
static void put_line(const char *s) {
    if (*s == '.' || *s == '\'') fputs("\\&", stdout);
    for (const char *stop; (stop = strstr(s, ". ")) != NULL; s = stop + 2) {
        char sentence[512];
        snprintf(sentence, sizeof sentence, "%.*s", (int)(stop + 1 - s), s);
        put(sentence);
        putchar('\n');
    }
    put(s);
    putchar('\n');
}

/* A quoted argument of a macro line: words that are names of macros must not run. */
static void put_quoted(const char *s) {
    fputs(" \"", stdout);
    put(s);
    putchar('"');
}

/* ---- options and commands -------------------------------------------------------------------- */

static void option_item(const cli_option *o) {
    char arg[64];
    cli_option_arg(o, arg, sizeof arg);
    fputs(".It", stdout);
    if (o->letter) printf(" Fl %c ,", o->letter);
    fputs(" Fl \\-", stdout);
    put(o->name);
    if (*arg) fputs(" Ar", stdout), put_quoted(arg);
    putchar('\n');
}

static void option_facts(const cli_option *o) {
    char env[64];
    cli_env_name(o, env, sizeof env);
    if (o->kind == KIND_INT || o->kind == KIND_NUM)
        printf("A %snumber from %.10g to %.10g.\n", o->kind == KIND_INT ? "whole " : "", o->low, o->high);
    if (o->kind == KIND_LIST) puts("May be given several times.");
    if (o->kind != KIND_FLAG && *o->initial) {
        fputs("Default:\n.Ql", stdout);
        put_quoted(o->initial);
        puts(" .");
    }
    fputs("Commands:", stdout);
    const char *between = " ";
    const uint64_t all = (UINT64_C(1) << CLI_COMMANDS) - 1;
    if ((o->commands & all) == all) fputs(" every command", stdout);
    else
        for (int i = 0; i < CLI_COMMANDS; i++)
            if (cli_option_for(o, (cli_command_id)i))
                printf("%s%s", between, cli_commands[i].name), between = ", ";
    printf(".\nEnvironment:\n.Ev %s .\n", env);
}

static void options_section(bool experimental) {
    puts(experimental
             ? ".Sh EXPERIMENTAL OPTIONS\n"
               "These change answers and so far lose to the simpler way at equal bytes.\n"
               ".Bl -tag -width Ds"
             : ".Sh OPTIONS\n"
               "Each option can also stand in the environment and, under its long name, in\n"
               ".Pa squish.ini .\n"
               "A flag on the command line wins over the environment, the environment over the file.\n"
               ".Bl -tag -width Ds");
    for (int i = 0; i < OPT_COUNT; i++) {
        const cli_option *o = &cli_options[i];
        if (experimental != !!(o->commands & CLI_EXPERIMENTAL)) continue;
        option_item(o);
        char help[256];
        snprintf(help, sizeof help, "%c%s.",
                 *o->help >= 'a' && *o->help <= 'z' ? *o->help - 'a' + 'A' : *o->help, o->help + 1);
        put_line(help);
        option_facts(o);
    }
    puts(".El");
}

static void synopsis(void) {
    puts(".Sh SYNOPSIS");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        printf(".Nm Cm %s\n", cli_commands[i].name);
        if (*cli_commands[i].args) fputs(".Ar", stdout), put_quoted(cli_commands[i].args), putchar('\n');
        puts(".Op Ar options");
    }
    puts(".Nm Fl \\-version");
}

static void commands_section(void) {
    puts(".Sh COMMANDS\n.Bl -tag -width Ds");
    for (int i = 0; i < CLI_COMMANDS; i++) {
        const cli_command *k = &cli_commands[i];
        printf(".It Cm %s", k->name);
        if (*k->args) fputs(" Ar", stdout), put_quoted(k->args);
        char summary[256];
        snprintf(summary, sizeof summary, "%c%s.", k->summary[0] - 'a' + 'A', k->summary + 1);
        putchar('\n');
        put_line(summary);
        if (k->details) put_line(k->details);
    }
    puts(".El");
}

static void chat_section(void) {
    puts(".Sh CHAT\n"
         "A line that begins with three double quotes opens a message of many lines; three double quotes end "
         "it.\n"
         "A pasted text of many lines is part of one message and is shown by its number of lines.\n"
         "Ctrl\\-C empties the line, and while an answer is made it stops the answer and keeps the "
         "conversation.\n"
         "Ctrl\\-D leaves.\n"
         "Arrow keys move and bring back earlier lines.\n"
         "Where standard input or standard output is not a terminal, each line is a message, and there is no "
         "prompt.\n"
         ".Bl -tag -width Ds");
    for (int i = 0; i < CLI_CHAT_COMMANDS; i++) {
        printf(".It Ic /%s", cli_chat_commands[i].name);
        if (*cli_chat_commands[i].args) fputs(" Ar", stdout), put_quoted(cli_chat_commands[i].args);
        putchar('\n');
        put_line(cli_chat_commands[i].help);
    }
    puts(".El");
}

static void examples_section(void) {
    puts(".Sh EXAMPLES\n.Bd -literal");
    for (int i = 0; i < CLI_COMMANDS; i++)
        for (int j = 0; j < CLI_EXAMPLES_MAX && cli_examples[i][j]; j++)
            put(cli_examples[i][j]), putchar('\n');
    puts(".Ed");
}

/* ---- what is not in a table ------------------------------------------------------------------ */

static const char about[] =
    ".Sh DESCRIPTION\n"
    ".Nm\n"
    "runs language models on this machine.\n"
    "It reads checkpoints as they are published, compresses them once, maps the result and answers.\n"
    ".Pp\n"
    ".Ar MODEL\n"
    "is a Hugging Face folder, a folder of tiers, a\n"
    ".Pa .sqw\n"
    "file, a\n"
    ".Pa .gguf\n"
    "file (for\n"
    ".Cm tokenize , detokenize , template\n"
    "and\n"
    ".Cm show ) ,\n"
    "or a name that\n"
    ".Nm Cm list\n"
    "shows.\n"
    "Without one it is the shipped\n"
    ".Ql squish\\-tiny .\n"
    "A checkpoint without a ready tier is compressed first, once, beside itself or, where that cannot be "
    "written, in\n"
    "the home folder.\n"
    ".Pp\n"
    "Results go to standard output, everything else to standard error.\n"
    "With\n"
    ".Fl \\-json\n"
    "standard output carries one JSON object; a failure is\n"
    ".Ql {\\(dqerror\\(dq: {\\(dqcode\\(dq: ..., \\(dqmessage\\(dq: ...}} .\n";

static const char places[] =
    ".Sh ENVIRONMENT\n"
    ".Bl -tag -width Ds\n"
    ".It Ev SQUISH_HOME\n"
    "The home folder, instead of\n"
    ".Pa ~/.squish .\n"
    ".It Ev SQUISH_ISA\n"
    "Newest instruction set to use, as\n"
    ".Fl \\-isa .\n"
    ".It Ev NO_COLOR\n"
    "No colours if set and not empty.\n"
    ".It Ev SQUISH_ Ns Ar OPTION\n"
    "Every option, see\n"
    ".Sx OPTIONS .\n"
    ".El\n"
    ".Sh FILES\n"
    ".Bl -tag -width Ds\n"
    ".It Pa ~/.squish/squish.ini\n"
    "Options, one a line:\n"
    ".Ql name = value .\n"
    "Lines that begin with # or ; are comments.\n"
    ".It Pa ~/.squish/models\n"
    "Models that can be named, and tiers of checkpoints that lie in read\\-only places.\n"
    ".It Pa ~/.squish/history\n"
    "Lines typed in\n"
    ".Nm Cm chat ,\n"
    "readable by its owner only.\n"
    ".El\n"
    ".Sh EXIT STATUS\n"
    ".Bl -tag -width Ds -compact\n"
    ".It 0\nDone.\n"
    ".It 1\nFailed: bad input, or the system refused.\n"
    ".It 2\nWrong usage.\n"
    ".It 3\nNo such model or file.\n"
    ".It 4\nRefused: the result would be too poor to use.\n"
    ".It 5\nNo room in memory or on the disk.\n"
    ".It 6\nThe network failed.\n"
    ".It 130\nStopped by the user.\n"
    ".El\n";

int cli_man(cli *c) {
    if (c->n_args) return cli_fail_text(c, 2, "man takes no arguments");
    printf(".\\\" SPDX-License-Identifier: Apache-2.0\n.Dd November 23, 2026\n.Dt SQUISH 1\n.Os\n.Sh "
           "NAME\n.Nm squish\n"
           ".Nd language models on this machine\n");
    synopsis();
    fputs(about, stdout);
    commands_section();
    options_section(false);
    options_section(true);
    chat_section();
    fputs(places, stdout);
    examples_section();
    puts(".Sh SEE ALSO\n.Lk https://huggingface.co \"checkpoints\"");
    return 0;
}
