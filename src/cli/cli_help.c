/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_help.c - --help of the program and of each command, from the tables. */
#include "cli/cli.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* What to type; the man page shows the same lines. */
const char *const cli_examples[CLI_COMMANDS][CLI_EXAMPLES_MAX] = {
    [CLI_RUN] = {"squish run \"What is the capital of Japan?\"",
                 "squish run qwen2.5:1.5b --temp 0 \"Hello\"",
                 "cat notes.txt | squish run --system \"Sum up in one sentence.\""},
    [CLI_CHAT] = {"squish chat", "squish chat path/to/checkpoint --ctx 8192"},
    [CLI_SERVE] = {"squish serve", "squish serve path/to/checkpoint --ollama-port 11434",
                   "squish serve --host 0.0.0.0 --api-key-file keys.txt"},
    [CLI_COMPRESS] = {"squish compress path/to/checkpoint",
                      "squish compress path/to/checkpoint --tier q8 -o /data/tiers"},
    [CLI_CALIBRATE] = {"squish calibrate path/to/checkpoint",
                       "squish calibrate path/to/checkpoint --text book.txt --block 1",
                       "squish calibrate path/to/checkpoint --codec --text book.txt"},
    [CLI_TRAIN_HEADS] = {"squish train-heads",
                         "squish train-heads path/to/checkpoint --text book.txt --steps 2000"},
    [CLI_FIDELITY] = {"squish fidelity path/to/checkpoint --tier q8",
                      "squish fidelity path/to/checkpoint other.gguf --html report.html"},
    [CLI_EXPORT] = {"squish export path/to/checkpoint --to mlx -o checkpoint-mlx"},
    [CLI_PLAN] = {"squish plan path/to/checkpoint", "squish plan qwen2.5:1.5b --memory 8G --ctx 8192"},
    [CLI_GC] = {"squish gc path/to/checkpoint --dry-run",
                "squish gc path/to/checkpoint --keep 0 --drop-source", "squish gc"},
    [CLI_SHOW] = {"squish show", "squish show squish-tiny --tensors"},
    [CLI_LIST] = {"squish list"},
    [CLI_PULL] = {"squish pull qwen2.5:1.5b", "squish pull hf.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0",
                  "squish pull qwen3:8b --limit-rate 5M"},
    [CLI_SEARCH] = {"squish search qwen", "squish search 7b"},
    [CLI_CATALOG] = {"squish catalog", "squish catalog --json"},
    [CLI_IMPORT] = {"squish import path/to/checkpoint", "squish import model.gguf mine"},
    [CLI_RM] = {"squish rm qwen2.5:1.5b"},
    [CLI_CP] = {"squish cp qwen2.5:1.5b mine"},
    [CLI_PS] = {"squish ps", "squish ps --port 8080"},
    [CLI_STOP] = {"squish stop qwen2.5:1.5b"},
    [CLI_TOKENIZE] = {"squish tokenize \"The capital of Japan is\"",
                      "squish tokenize --special \"<|im_start|>user\""},
    [CLI_DETOKENIZE] = {"squish detokenize 309,607,289,3542,298"},
    [CLI_TEMPLATE] = {"squish template --messages talk.json",
                      "squish template --template chat.jinja --messages talk.json"},
    [CLI_GRAMMAR] = {"squish grammar --check answer.json --schema schema.json",
                     "squish grammar --check answer.json --schema schema.json --bench --json"},
    [CLI_LOGITS] = {"squish logits --ids 309,607,289,3542,298",
                    "squish logits --ids 1,2,3 --last 3 -o scores.safetensors"},
    [CLI_PPL] = {"squish ppl --text book.txt --window 1024"},
    [CLI_EVAL] = {"squish eval --tasks arc_easy,piqa --data tasks --limit 200",
                  "squish eval path/to/checkpoint --tier 0 --reference source --data tasks",
                  "squish eval --data tasks --items run.jsonl --resume --json"},
    [CLI_VALIDATE] = {"squish validate answer.json --schema answer.schema.json",
                      "squish validate - --schema a.json --schema-ref b.json --json < x.json"},
    [CLI_BENCH] = {"squish bench load --runs 10", "squish bench decode,prefill,batch --report report",
                   "squish bench eoe --runs 3 --report report"},
    [CLI_POC] = {"squish poc --runs 3",
                 "squish poc path/to/checkpoint --skip-download --skip-reference --report report"},
    [CLI_DOCTOR] = {"squish doctor"},
    [CLI_CONFIG] = {"squish config", "SQUISH_TEMP=0.2 squish config --json"},
    [CLI_COMPLETION] = {"source <(squish completion bash)",
                        "squish completion fish > ~/.config/fish/completions/squish.fish"},
    [CLI_MAN] = {"squish man | mandoc -a"},
};

bool cli_option_for(const cli_option *o, cli_command_id id) { return o->commands & (UINT64_C(1) << id); }

void cli_option_arg(const cli_option *o, char *out, size_t n) {
    snprintf(out, n, "%s", o->arg ? o->arg : "");
    for (char *p = out; *p && o->kind == KIND_ENUM; p++)
        if (*p == ',') *p = '|';
}

static void usage_of(const cli_option *o, char *out, size_t n) {
    char arg[64], letter[8] = "    ";
    cli_option_arg(o, arg, sizeof arg);
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(out, n, "%s--%s%s%s", letter, o->name, *arg ? " " : "", arg);
}

static int width_of(FILE *f) {
    struct winsize w;
    const bool known = isatty(fileno(f)) && ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col >= 40;
    return !known ? 80 : w.ws_col < 100 ? w.ws_col : 100;
}

/* Words of text, broken before the width; the cursor stands at column `at`, further lines begin at `indent`.
 */
static void wrap(FILE *f, const char *text, int at, int indent) {
    const int width = width_of(f);
    for (const char *p = text; *p; p += strspn(p, " ")) {
        const int n = (int)strcspn(p, " ");
        const bool first = p == text || at == indent;
        if (!first && at + 1 + n > width) fprintf(f, "\n%*s", indent, ""), at = indent;
        else if (!first) putc(' ', f), at++;
        fprintf(f, "%.*s", n, p);
        at += n;
        p += n;
    }
    fputc('\n', f);
}

enum { LABEL_COLUMNS = 30 };

static void print_option(FILE *f, const cli_option *o) {
    char label[96], text[256], said[32];
    usage_of(o, label, sizeof label);
    snprintf(said, sizeof said, "(%s:", o->initial); /* "(0: all)" tells as much as "(default: 0)" */
    const bool tell =
        o->kind != KIND_FLAG && *o->initial && !strstr(o->help, "default") && !strstr(o->help, said);
    snprintf(text, sizeof text, tell ? "%s (default: %s)" : "%s", o->help, o->initial);
    fprintf(f, "  %-*s", LABEL_COLUMNS, label);
    if (strlen(label) >= LABEL_COLUMNS) fprintf(f, "\n  %*s", LABEL_COLUMNS, "");
    wrap(f, text, LABEL_COLUMNS + 2, LABEL_COLUMNS + 2);
}

static void options_of(FILE *f, cli_command_id id, bool experimental) {
    for (int i = 0; i < OPT_COUNT; i++)
        if (cli_option_for(&cli_options[i], id) &&
            experimental == !!(cli_options[i].commands & CLI_EXPERIMENTAL))
            print_option(f, &cli_options[i]);
}

void cli_help_experimental(FILE *f, const cli_command *k) {
    fprintf(f, "squish %s - %s\n\n", k->name, k->summary);
    wrap(f,
         "These change answers, and so far lose to the simpler way at equal bytes (docs/kv.md has the "
         "tables). They are complete and "
         "tested, and may go.",
         0, 0);
    fputs("\nexperimental options:\n", f);
    options_of(f, (cli_command_id)(k - cli_commands), true);
}

static void help_command(FILE *f, const cli_command *k) {
    const cli_command_id id = (cli_command_id)(k - cli_commands);
    fprintf(f, "squish %s - %s\n\nusage: squish %s %s%s[OPTIONS]\n\n", k->name, k->summary, k->name, k->args,
            *k->args ? " " : "");
    if (k->details) wrap(f, k->details, 0, 0), fputc('\n', f);
    fputs("options:\n", f);
    options_of(f, id, false);
    fputs("\nexamples:\n", f);
    for (int i = 0; i < CLI_EXAMPLES_MAX && cli_examples[id][i]; i++)
        fprintf(f, "  %s\n", cli_examples[id][i]);
}

static void help_overview(FILE *f) {
    fprintf(f,
            "squish %s - language models on this machine\n\nusage: squish COMMAND [ARGUMENTS] "
            "[OPTIONS]\n\ncommands:\n",
            squish_version());
    for (int i = 0; i < CLI_COMMANDS; i++)
        fprintf(f, "  %-12s%s\n", cli_commands[i].name, cli_commands[i].summary);
    fputs("\nMODEL is a Hugging Face folder, a .sqw file, a .gguf file, or a name that squish list\n"
          "shows; without one it is the shipped squish-tiny. Options can also stand in the\n"
          "environment (SQUISH_TEMP) and in ~/.squish/squish.ini (temp = 0.7): see squish config.\n"
          "\n"
          "  squish run \"What is the capital of Japan?\"\n"
          "  squish chat\n"
          "\n"
          "squish COMMAND --help explains a command, squish man prints the manual, squish --version the "
          "version.\n",
          f);
}

void cli_help(FILE *f, const cli_command *command) {
    if (command) help_command(f, command);
    else help_overview(f);
}
