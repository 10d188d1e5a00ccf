/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_main.c - the table of commands, and main. */
#include "cli/cli.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

const cli_command cli_commands[CLI_COMMANDS] = {
    [CLI_RUN] = {"run", "[MODEL] [PROMPT]", "answer one prompt, or chat where there is none",
                 "With PROMPT, or text on standard input, one answer is streamed. With neither it is a chat. "
                 "The first "
                 "argument is the model if it names one; a checkpoint without a ready tier is compressed "
                 "first, once.",
                 cli_run},
    [CLI_CHAT] = {"chat", "[MODEL]", "talk with a model",
                  "Ctrl-C stops an answer, Ctrl-D leaves, /help lists commands.", cli_chat},
    [CLI_SERVE] = {"serve", "[MODEL...]", "answer programs over HTTP",
                   "Serves the APIs of OpenAI, Ollama and Anthropic on one port. The models named stay "
                   "loaded, "
                   "the first is the default; others of the store are loaded when somebody asks for them and "
                   "unloaded when nobody does. Ctrl-C or SIGTERM lets answers end, a second one does not.",
                   cli_serve},
    [CLI_COMPRESS] = {"compress", "SRC", "build tiers of a model",
                      "SRC is a Hugging Face or MLX folder, or a GGUF file. --tier takes a list: 0 and q8 "
                      "are for running, 1 is a copy in one file, 2 and 3 are numpy files. Tiers go to "
                      "SRC-compressed, or to the store where that cannot be written. A tier is there whole "
                      "or not at all; the source is never changed.",
                      cli_compress},
    [CLI_CALIBRATE] = {"calibrate", "[SRC]", "record what goes into a model's matrices",
                       "Runs a text (--text, or a built-in mix) through the source weights and keeps the "
                       "sums that methods awq and gptq of squish compress need. The file lies beside the "
                       "tiers unless -o says otherwise. With --codec, or --moe, it is codebooks, or maps, of "
                       "the weights that run.",
                       cli_calibrate},
    [CLI_TRAIN_HEADS] = {"train-heads", "[MODEL]", "train heads that guess a model's next tokens",
                         "The model writes text, from an empty page and from places of --text, and small "
                         "heads learn what it says of it; the model does not change. With heads beside its "
                         "tiers answers come in fewer steps, word for word the same (--spec).",
                         cli_train_heads},
    [CLI_FIDELITY] =
        {"fidelity", "SRC [MODEL]", "what is left of a checkpoint in a model",
         "Compares the weights of MODEL (or of a tier of SRC, see --tier) with those of SRC, tensor by "
         "tensor, and the first token after each of some prompts.",
         cli_fidelity},
    [CLI_EXPORT] =
        {"export", "[MODEL] --to mlx -o DIR", "write a model in the form of others",
         "mlx: a folder that mlx-lm opens. Codes and scales go over bit by bit; what MLX cannot hold becomes "
         "f16.",
         cli_export},
    [CLI_PLAN] = {"plan", "[MODEL]", "which tier would run here, and why",
                  "Sizes of tiers that are there or could be built, what each needs of memory, the longest "
                  "context, and tokens a second expected from the memory rate measured now. Loads nothing; "
                  "of a model of a hub only the headers are fetched, and not kept.",
                  cli_plan},
    [CLI_GC] = {"gc", "[MODEL]", "remove what a model no longer needs",
                "Without MODEL: pulls that were stopped. Else leftovers of builds go; with --keep every "
                "other tier, with --drop-source the checkpoint's "
                "weights, once a tier was read back whole. See --dry-run.",
                cli_gc},
    [CLI_SHOW] = {"show", "[MODEL]", "facts about a model, from its file", NULL, cli_show},
    [CLI_LIST] =
        {"list", "", "models on this machine",
         "Those of the store, the shipped one, and those that Hugging Face's tools, Ollama or LM Studio "
         "brought here, which run where they lie.",
         cli_list},
    [CLI_PULL] =
        {"pull", "NAME", "fetch a model",
         "NAME is one of the catalogue (qwen2.5:1.5b), hf.co/USER/REPO[:QUANT][@REVISION] or "
         "USER/REPO, ollama.com/library/NAME:TAG, or the URL of a .gguf file. Every file is checked "
         "against the sum its hub gives, and the model is in the store whole or not at all. A pull "
         "that was stopped goes on where it was. HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and HTTPS_PROXY "
         "mean what they mean to others.",
         cli_pull},
    [CLI_SEARCH] = {"search", "WORD", "models of the catalogue",
                    "By name, repository and remarks; asks nobody.", cli_search},
    [CLI_CATALOG] = {"catalog", "", "every model of the catalogue",
                     "Those marked with * were entered without a look at the hub: sizes may differ. "
                     "catalog.json in the home folder adds entries.",
                     cli_catalog},
    [CLI_IMPORT] =
        {"import", "PATH [NAME]", "take a folder or file into the store",
         "It is copied (file systems that can share its blocks do), and sums are taken. The source stays "
         "as it is.",
         cli_import},
    [CLI_RM] =
        {"rm", "NAME...", "remove models of the store",
         "With their tiers. Nothing outside the store is touched; a stopped pull of that name goes, too.",
         cli_rm},
    [CLI_CP] = {"cp", "MODEL NAME", "give a model a further name", "No bytes are copied.", cli_cp},
    [CLI_PS] = {"ps", "", "models that a server has loaded", "Asks the server at --host and --port.", cli_ps},
    [CLI_STOP] = {"stop", "MODEL", "have a server unload a model", "Answers that run end first.", cli_stop},
    [CLI_TOKENIZE] = {"tokenize", "[MODEL] [TEXT]", "text to token ids",
                      "Without TEXT the text comes from --text or standard input.", cli_tokenize},
    [CLI_DETOKENIZE] = {"detokenize", "[MODEL] IDS", "token ids to text",
                        "IDS are numbers separated by commas or spaces.", cli_detokenize},
    [CLI_TEMPLATE] = {"template", "[MODEL] --messages FILE", "render the chat template",
                      "With --template no model is needed.", cli_template},
    [CLI_GRAMMAR] =
        {"grammar", "[MODEL] --check FILE", "is a file in a language",
         "The language is that of --schema, --regex, --gbnf, --ebnf, --lark or --tags; with a schema any "
         "white space will do. The file is read token by token, as an answer would be made, and each mask "
         "and step is timed. Exit status 1 if it is not in the language.",
         cli_grammar},
    [CLI_LOGITS] =
        {"logits", "[MODEL] --ids 1,2,3", "raw scores of the last positions",
         "With -o FILE.safetensors all scores are written as tensor 'logits' [N, vocabulary], f32.",
         cli_logits},
    [CLI_PPL] = {"ppl", "[MODEL] --text FILE", "perplexity of a text",
                 "Windows do not overlap; each predicts its tokens from the second on and the first of the "
                 "next window.",
                 cli_ppl},
    [CLI_EVAL] =
        {"eval", "[MODEL] --tasks arc_easy,piqa --data DIR",
         "benchmark tasks, as lm-evaluation-harness scores them",
         "Tasks: arc_easy, arc_challenge, hellaswag, piqa, winogrande, from their public files in DIR, zero "
         "shots. acc takes the likeliest choice, acc_norm the likeliest per character; +- is the standard "
         "error. With --reference the same items are compared one by one: PASS if at most 2 points are lost "
         "and the loss is not beyond chance (exact McNemar p < 0.01); exit status 1 if not. --items keeps "
         "every item as a line of JSON, and with --resume a stopped run goes on.",
         cli_eval},
    [CLI_VALIDATE] = {"validate", "FILE --schema FILE", "does a JSON file satisfy a JSON Schema",
                      "2020-12, and 2019-09, 7, 6 and 4 where $schema says so. Prints valid, or one line per "
                      "violation: the place as a JSON pointer, the reason, the keyword. Exit status 0 or 1. "
                      "Nothing is fetched: documents that a $ref names come with --schema-ref. FILE may be - "
                      "for standard input.",
                      cli_validate},
    [CLI_BENCH] =
        {"bench",
         "all|limits|load|decode|prefill|batch|threads|attention|kv|kv-memory|kv-votes|latent|needle|"
         "moe|agile|tokenizer|grammar|schema|spec|quant|wave12|eoe "
         "[MODEL]",
         "measure this machine with a model",
         "One or more, with commas between; all if none is named. limits: what memory and arithmetic give. "
         "load: time to ready and memory, warm and cold, and from the start of the program to the first byte "
         "of an answer. decode: tokens a second behind contexts up to --max-ctx. prefill: prompts of 8 to "
         "2048 tokens. batch: 1 to 16 answers at once. threads: decode and prefill on 1 thread to all. "
         "tokenizer: text to tokens and back, --text or a mix of its own. quant: the quantisers on weights "
         "in memory. Rows are medians of --runs runs, beside the limit measured between them. wave12 and eoe "
         "(not part of all): the tables of the first report, each figure beside ours; eoe also asks other "
         "servers (--peer).",
         cli_bench},
    [CLI_POC] = {"poc", "[SRC]", "the whole story of a checkpoint in one run",
                 "Answers from the source, compresses, loads cold and warm, answers from the tier, once more "
                 "from the tier's file alone, compares weights and first tokens, and prints every figure "
                 "beside the one first reported and the limit of this machine. Exit status 1 if a check "
                 "failed.",
                 cli_poc},
    [CLI_DOCTOR] = {"doctor", "", "check this machine and the shipped model", NULL, cli_doctor},
    [CLI_CONFIG] = {"config", "", "every option: its value and where it comes from", NULL, cli_config},
    [CLI_COMPLETION] = {"completion", "bash|zsh|fish", "print a completion script", NULL, cli_completion},
    [CLI_MAN] = {"man", "", "print the man page", NULL, cli_man},
};

static int print_version(void) {
    squish_machine m;
    squish_machine_get(&m);
    printf("squish %s\nisa: %s\nfeatures: %s\n", squish_build_info(), m.isa, m.features);
    return 0;
}

static int unknown_command(const cli *c, const char *name) {
    int best = 4;
    const char *near = NULL;
    for (int i = 0; i < CLI_COMMANDS; i++) {
        const int d = sq_edit_distance(name, cli_commands[i].name);
        if (d < best) best = d, near = cli_commands[i].name;
    }
    if (near) return cli_fail_text(c, 2, "unknown command '%.60s' (did you mean %s?)", name, near);
    return cli_fail_text(c, 2, "unknown command '%.60s' (see: squish --help)", name);
}

static int overview(const cli *c, int argc, char **argv) {
    if (argc < 2) {
        cli_help(stderr, NULL);
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) return print_version();
    const bool help =
        strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0;
    if (!help) return unknown_command(c, argv[1]);
    const cli_command *of = argc > 2 ? cli_command_find(argv[2]) : NULL;
    if (argc > 2 && !of) return unknown_command(c, argv[2]);
    cli_help(stdout, of);
    return 0;
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, "");
    cli_signal_install();
    cli c = {0};
    const squish_alloc a = sq_alloc_default();
    sq_arena_init(&c.arena, &a, 4096, 0);
    c.command = argc > 1 ? cli_command_find(argv[1]) : NULL;
    int code;
    if (!c.command) {
        code = overview(&c, argc, argv);
    } else {
        c.id = (cli_command_id)(c.command - cli_commands);
        code = cli_parse(&c, argc - 2, argv + 2);
        if (code == 0 && cli_flag(&c, OPT_HELP_EXPERIMENTAL))
            cli_help_experimental(stdout, c.command);
        else if (code == 0 && cli_flag(&c, OPT_HELP))
            cli_help(stdout, c.command);
        else if (code == 0)
            code = c.command->run(&c);
    }
    code = cli_close_stdout(&c, code);
    sq_arena_deinit(&c.arena);
    return code;
}
