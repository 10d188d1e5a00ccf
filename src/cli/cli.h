/* SPDX-License-Identifier: Apache-2.0
 *
 * cli.h - the program squish: a client of squish.h like anybody else.
 *
 * One table of commands (cli_main.c), one of options (cli_options.def). A command is a function of the parsed
 * line that returns an exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 quality refused, 5 no
 * room, 6 network, 130 stopped. Results go to stdout, everything else to stderr. */
#ifndef SQ_CLI_H
#define SQ_CLI_H

#include "base/base.h"
#include "squish_build.h"

#include <jansson.h>
#include <stdio.h>

typedef enum {
    CLI_RUN,
    CLI_CHAT,
    CLI_SERVE,
    CLI_COMPRESS,
    CLI_CALIBRATE,
    CLI_TRAIN_HEADS,
    CLI_FIDELITY,
    CLI_EXPORT,
    CLI_PLAN,
    CLI_GC,
    CLI_SHOW,
    CLI_LIST,
    CLI_PULL,
    CLI_SEARCH,
    CLI_CATALOG,
    CLI_IMPORT,
    CLI_RM,
    CLI_CP,
    CLI_PS,
    CLI_STOP,
    CLI_TOKENIZE,
    CLI_DETOKENIZE,
    CLI_TEMPLATE,
    CLI_GRAMMAR,
    CLI_LOGITS,
    CLI_PPL,
    CLI_EVAL,
    CLI_VALIDATE,
    CLI_BENCH,
    CLI_POC,
    CLI_DOCTOR,
    CLI_CONFIG,
    CLI_COMPLETION,
    CLI_MAN,
    CLI_COMMANDS
} cli_command_id;

typedef enum { KIND_FLAG, KIND_INT, KIND_NUM, KIND_TEXT, KIND_LIST, KIND_ENUM } cli_kind;
typedef enum { CLI_HINT_NONE, CLI_HINT_FILE, CLI_HINT_DIR, CLI_HINT_MODEL } cli_hint;
typedef enum { CLI_FROM_DEFAULT, CLI_FROM_FILE, CLI_FROM_MADE, CLI_FROM_ENV, CLI_FROM_FLAG } cli_origin;

typedef enum {
#define CLI_OPT(id, ...) OPT_##id,
#include "cli/cli_options.def"
#undef CLI_OPT
    OPT_COUNT
} cli_option_id;

typedef struct {
    const char *name;
    char letter;
    cli_kind kind;
    const char *arg, *initial; /* initial "": no value, the command decides */
    double low, high;
    uint64_t commands; /* bit per cli_command_id, and CLI_EXPERIMENTAL */
    cli_hint hint;
    const char *help;
} cli_option;
extern const cli_option cli_options[OPT_COUNT];

/* Losers so far, complete and tested: only --help-experimental shows them. */
#define CLI_EXPERIMENTAL (UINT64_C(1) << 63)

enum { CLI_LIST_MAX = 16, CLI_ARGS_MAX = 64 };

typedef struct {
    const char *text;          /* as written; NULL only for LIST without entries */
    cli_origin origin;
    const char *list[CLI_LIST_MAX];
    int n_list;
} cli_value;

typedef struct cli cli;
typedef struct {
    const char *name, *args, *summary, *details;
    int (*run)(cli *c);
} cli_command;
extern const cli_command cli_commands[CLI_COMMANDS];

struct cli {
    const cli_command *command;
    cli_command_id id;
    cli_value values[OPT_COUNT];
    const char *args[CLI_ARGS_MAX];
    int n_args;
    const char *made_template; /* of a made model; NULL: none */
    sq_arena arena;            /* strings of the line, the environment and squish.ini */
};

/* ---- the parsed line (cli_options.c) --------------------------------------------------------- */

/* Environment, squish.ini and flags into c->values; checks every value. Returns 0 or the exit status after
 * saying why. */
int cli_parse(cli *c, int argc, char **argv);
/* Check and set one option, as if from origin; false after saying why. */
bool cli_set(cli *c, cli_option_id id, const char *text, cli_origin origin);
/* Is text a value of option o? Else puts what was wanted into why [n]. */
bool cli_value_ok(const cli_option *o, const char *text, char *why, size_t n);
bool cli_has(const cli *c, cli_option_id id); /* a value is in force */
bool cli_flag(const cli *c, cli_option_id id);
int64_t cli_int(const cli *c, cli_option_id id);
double cli_num(const cli *c, cli_option_id id);
const char *cli_text(const cli *c, cli_option_id id); /* NULL if none */
const char *cli_home(const cli *c);                  /* NULL: the library's default */
const cli_command *cli_command_find(const char *name);
void cli_env_name(const cli_option *o, char *out, size_t n);
/* Path of a file in the home folder; false if there is no home. */
bool cli_home_path(const cli *c, const char *name, char *out, size_t n);

/* ---- saying things (cli_out.c) --------------------------------------------------------------- */

int cli_exit_code(squish_status st);
/* One line on stderr, and with --json an error object on stdout. Returns the exit status. */
int cli_fail(const cli *c, const squish_error *err);
int cli_fail_text(const cli *c, int code, const char *fmt, ...) SQ_PRINTF(3, 4);
void cli_note(const cli *c, const char *fmt, ...) SQ_PRINTF(2, 3); /* a line on stderr unless --quiet */
int cli_print_json(json_t *o);                                     /* takes the reference; 0 or 1 */
/* Text of a model, flushed. On a terminal control characters are shown as U+FFFD, so that it cannot drive the
 * terminal. */
void cli_put_text(FILE *f, const char *text, size_t n);
int cli_close_stdout(const cli *c, int code);                      /* flush; a failed write turns 0 into 1 */
bool cli_color(FILE *f);
/* "8G", "512M", "1.5g" or plain bytes (cli_plan.c). */
bool cli_parse_size(const char *text, uint64_t *out);
/* Human sizes: "1.23 GB". */
const char *cli_bytes(uint64_t n, char out[32]);
/* The progress callback: a bar on a terminal, nothing elsewhere. user is the cli. */
bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total);
/* From now on progress fills the bar from share `from` to share `to`, so that several pieces of work have one
 * bar between them, called `label`. NULL: each piece has its own again, and the bar goes. */
void cli_progress_part(const cli *c, const char *label, double from, double to);
void cli_warn(void *user, const char *line);

/* ---- interruption (cli_signal.c) ------------------------------------------------------------- */

/* Ctrl-C: the first stops what runs (progress callbacks and the watched timeline), the second ends the
 * program. */
void cli_signal_install(void);
void cli_signal_watch(squish_seq *s); /* NULL: none */
bool cli_signal_seen(void);
void cli_signal_clear(void);
/* While somebody talks at a terminal Ctrl-C never ends the program, however often; SIGTERM does, after
 * leave() put the terminal back (it runs in the handler). NULL: the conversation is over. */
void cli_signal_converse(void (*leave)(void));

/* ---- models of hubs (cli_pull.c) -------------------------------------------------------------- */

/* Does name mean a model of a hub (catalogue, hf.co/.., ollama.com/.., a URL)? Nobody is asked. */
bool cli_hub_name(const cli *c, const char *name);
/* squish_locate; and where the name is not here but means a model of a hub, that is pulled first, its
 * progress filling most of a bar whose rest is the caller's. */
squish_status cli_locate(cli *c, const char *name, squish_text *path, squish_error *err);
/* squish_locate for those who fetch nothing: a name of a hub that is not here is told how to get it. */
squish_status cli_locate_here(const cli *c, const char *name, squish_text *path, squish_error *err);
/* squish_plan of a model here, or of the headers of one of a hub, which are not kept. */
squish_status cli_plan_of(cli *c, const char *name, const squish_plan_options *o, squish_text *out,
                          squish_error *err);

/* ---- models (cli_model.c) -------------------------------------------------------------------- */

typedef struct {
    squish_model *model, *draft; /* draft: that guesses for it, or NULL */
    squish_engine *engine;
    squish_seq *seq;
    squish_model_info info;
    squish_sampling sampling;  /* the model's, overridden by options */
} cli_session;
/* Find, compress if needed, and open the model named by --model or name (NULL: the shipped one). 0 or exit
 * status. */
int cli_open_model(cli *c, const char *name, bool text_only, squish_model **out);
/* The model of --draft, likewise; NULL: there is none. */
int cli_open_draft(cli *c, squish_model **out);
/* Find it and compress it if needed, for those who open it themselves. 0 or exit status. */
int cli_find_model(cli *c, const char *name, squish_tier tier, squish_text *path);
/* Also make an engine and a timeline, sampling from options. */
int cli_open_session(cli *c, const char *name, cli_session *s);
void cli_close_session(cli_session *s);
/* If the first positional argument names a model, take it off the list and return it; else --model or NULL.
 */
const char *cli_take_model(cli *c, bool required_if_two);
/* Whole file or standard input ("-"); UTF-8 is checked if text. 0 or exit status. */
int cli_read(cli *c, const char *path, bool text, squish_text *out);
/* "1,2 3" or "[1, 2, 3]" to ids in the arena. False after saying, about `what`, which part is none. */
bool cli_parse_ids(cli *c, const char *what, const char *text, int32_t **out, size_t *n);
squish_tier cli_tier(const cli *c);
/* As squish_model_options.heads. They take memory and time, so where their file is not named they are opened
 * for --spec heads, and for auto with the weights of the checkpoint, where they pay (docs/heads.md). */
const char *cli_heads(const cli *c);
squish_kv_options cli_kv_options(const cli *c); /* (cli_kv.c) all that is about old tokens, but --kv */
/* (cli_memory.c) --memory-limit and --agile-io; 0, or an exit code after saying what is wrong. */
int cli_memory(cli *c, squish_engine_options *o);
/* A line, if weights are streamed. */
void cli_say_memory(const cli *c, const squish_engine *e, const squish_model *m);
void cli_print_agile(const squish_engine *e); /* the same in a line on stderr */
/* What reading in units did, or why it did nothing; NULL: nobody asked. */
json_t *cli_lookahead_json(const squish_engine *e); /* likewise of guesses; NULL: weights are not streamed */
json_t *cli_agile_json(const squish_engine *e);
squish_attention cli_attention(const cli *c); /* --sage-attention, --sparge-attn and theirs */
/* (cli_refine.c) squish_compress, in two steps where --refine says so. *pid: the process that refines what
 * was built, or 0. */
squish_status cli_build(cli *c, const char *src, const squish_compress_options *o, squish_compress_result *r,
                        int32_t *pid, squish_error *err);
squish_tier cli_tier_named(const char *name); /* AUTO for a name that is none */ /* --tier */
squish_spec cli_spec(const cli *c);
squish_gen_options cli_gen_options(const cli *c, const cli_session *s);
/* (cli_grammar.c) Does one of --schema, --regex, --gbnf, --ebnf, --lark, --tags name a grammar? */
bool cli_names_grammar(const cli *c);
/* (cli_grammar.c) The one that does, for m; NULL if none does. read: for
 * reading files rather than for answers. 0 or exit status. */
int cli_open_grammar(cli *c, const squish_model *m, bool read, squish_grammar **out);
/* (cli_made.c) If name is a made model: its system message and parameters become options, where nobody gave
 * them, and its template c->made_template. 0 or exit status. */
int cli_take_made(cli *c, const char *name);
/* The template to use instead of the model's: --template's file, or a made model's; NULL: none. *owned is to
 * be freed. 0 or exit status. */
int cli_read_template(cli *c, squish_text *owned, const char **source);
const char *cli_finish_name(squish_finish f);
/* (cli_touched.c) What each option that was asked for has touched of an answer: [{"name", "count", "unit"}],
 * with "why" where that is nothing. Of the engine so far, and of what the cache holds at the end. */
json_t *cli_touched(const cli *c, const cli_session *s, const squish_gen_stats *t);
/* A line on stderr for each that touched nothing. */
void cli_note_untouched(const cli *c, const cli_session *s, const squish_gen_stats *t);
/* Options that are given, over what is there. */
void cli_apply_sampling(const cli *c, squish_sampling *s);
/* Times and counts of an answer, one line on stderr. */
void cli_print_stats(const cli_session *s, const squish_gen_stats *t);

/* ---- commands -------------------------------------------------------------------------------- */

int cli_run(cli *c);
int cli_chat(cli *c);
int cli_serve(cli *c);
int cli_compress(cli *c);
int cli_calibrate(cli *c);
int cli_train_heads(cli *c);
int cli_fidelity(cli *c);
int cli_export(cli *c);
int cli_plan(cli *c);
int cli_gc(cli *c);
int cli_show(cli *c);
int cli_list(cli *c);
int cli_pull(cli *c);
int cli_search(cli *c);
int cli_catalog(cli *c);
int cli_import(cli *c);
int cli_rm(cli *c);
int cli_cp(cli *c);
int cli_ps(cli *c);
int cli_stop(cli *c);
int cli_tokenize(cli *c);
int cli_detokenize(cli *c);
int cli_template(cli *c);
int cli_grammar(cli *c);
int cli_logits(cli *c);
int cli_ppl(cli *c);
int cli_eval(cli *c);
int cli_validate(cli *c);
int cli_bench(cli *c);
int cli_poc(cli *c);
int cli_doctor(cli *c);
int cli_config(cli *c);
int cli_completion(cli *c);
int cli_man(cli *c);
void cli_help(FILE *f, const cli_command *command); /* NULL: the overview */
void cli_help_experimental(FILE *f, const cli_command *command);

/* ---- what the pages made from the tables share (cli_help.c) ---------------------------------- */

enum { CLI_EXAMPLES_MAX = 3 };
/* Lines to type for each command; NULL after the last. */
extern const char *const cli_examples[CLI_COMMANDS][CLI_EXAMPLES_MAX];
bool cli_option_for(const cli_option *o, cli_command_id id);
/* Argument of an option as shown, "" for a flag; the words of an ENUM are separated by |. */
void cli_option_arg(const cli_option *o, char *out, size_t n);

#endif
