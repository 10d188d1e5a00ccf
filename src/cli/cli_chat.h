/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_chat.h - what the parts of `squish chat` share.
 *
 *   cli_repl.c           lines and pastes from a terminal or a pipe -> one message
 *   cli_chat.c           messages -> prompt -> one answer on one timeline
 *   cli_chat_commands.c  what begins with a slash */
#ifndef SQ_CLI_CHAT_H
#define SQ_CLI_CHAT_H

#include "cli/cli.h"

/* ---- reading messages (cli_repl.c) ----------------------------------------------------------- */

typedef struct cli_repl cli_repl;
typedef enum {
    REPL_MESSAGE,     /* *out holds it, without a newline at its end */
    REPL_INTERRUPTED, /* Ctrl-C: what was typed so far is forgotten */
    REPL_END,         /* Ctrl-D, or the end of the input */
    REPL_FAILED       /* longer than 16 MiB, or no memory */
} cli_repl_got;

/* On a terminal: line editing, the history file (NULL: none is kept), bracketed paste; keys typed between two
 * reads wait for the next. Else plain lines and no prompt. NULL: out of memory. One at a time. */
cli_repl *cli_repl_open(const char *history, bool terminal);
void cli_repl_close(cli_repl *r);
/* The next message into *out (emptied first). A line that begins with three quotes opens a message of many
 * lines, which ends with three quotes; a paste of many lines is part of one line. *fenced: it came between
 * three quotes. */
cli_repl_got cli_repl_read(cli_repl *r, sq_buf *out, bool *fenced);

/* ---- the conversation (cli_chat.c) ----------------------------------------------------------- */

typedef struct {
    cli *c;
    cli_session s;
    json_t *messages;          /* [{role, content}], as templates take them */
    const char *template_source; /* instead of the model's; NULL: that */
    squish_gen_stats stats;    /* of the last answer */
    bool has_stats, terminal;
    bool failed;               /* a message could not be answered */
} cli_talk;

/* Answer the messages and append the answer. False: nothing was appended, and it has been said why. */
bool cli_talk_answer(cli_talk *t);
json_t *cli_talk_last(const cli_talk *t,
                      const char *role); /* the last message if it is this role's, else NULL */
void cli_talk_drop_last(cli_talk *t);

/* ---- slash commands (cli_chat_commands.c) ---------------------------------------------------- */

typedef struct {
    const char *name, *args, *help;
    bool (*run)(cli_talk *t, char *rest); /* rest: what follows the name, trimmed; false: leave the chat */
} cli_chat_command;
enum { CLI_CHAT_COMMANDS = 9 };
extern const cli_chat_command cli_chat_commands[CLI_CHAT_COMMANDS];
/* Run the line "/name rest"; changes it. False: leave. */
bool cli_chat_command_run(cli_talk *t, char *line);

#endif
