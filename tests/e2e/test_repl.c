/* SPDX-License-Identifier: Apache-2.0
 *
 * test_repl.c - `squish chat` in a pseudo terminal, key by key, and its plain form between pipes. */
#include "support/cli_sh.h"
#include "support/pty.h"

#include <setjmp.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#define JAPAN "What is the capital of Japan?"
#define TOKYO "The capital of Japan is Tokyo."
#define CTRL_C "\003"
#define CTRL_D "\004"
#define UP "\033[A"
#define LEFT "\033[D"
#define PASTE_BEGIN "\033[200~"
#define PASTE_END "\033[201~"

static pty term;

static void start(const char *line) {
    pty_start(&term, line, "xterm-256color");
    assert_true(pty_expect(&term, ">>> "));
}

static void send_keys(const char *keys) { pty_send(&term, keys); }
static void expect(const char *text) { assert_true(pty_expect(&term, text)); }

/* A line, and the prompt after all it brings. */
static void enter(const char *line) {
    send_keys(line);
    send_keys("\r");
    expect("\n");
    expect(">>> ");
}

/* Wait for the first word of an answer: something other than space and escape codes. */
static void expect_answer(void) {
    expect("\n");
    for (bool more = true;; more = pty_read(&term, 100)) {
        const char *p = term.seen + term.at;
        while (*p && strchr("\r\n \033", *p)) {
            if (*p == '\033') p += strcspn(p, "hlmGJKABCDH");
            p += *p != 0;
        }
        if (*p) return;
        if (!more) fail_msg("the program left");
    }
}

static void leave(void) {
    send_keys(CTRL_D);
    assert_int_equal(pty_wait(&term), 0);
}

/* The conversation as /save writes it; owned by the caller. */
static json_t *saved(void) {
    char path[512];
    json_error_t e;
    enter("/save ~/talk.json");
    snprintf(path, sizeof path, "%s/talk.json", cli_folder);
    json_t *all = json_load_file(path, 0, &e);
    assert_true(json_is_array(all));
    return all;
}

static const char *content(const json_t *all, size_t i) {
    return json_string_value(json_object_get(json_array_get(all, i), "content"));
}
static const char *role(const json_t *all, size_t i) {
    return json_string_value(json_object_get(json_array_get(all, i), "role"));
}

static int fresh(void **state) {
    (void)state;
    return sh("rm -rf $T/.squish/history $T/talk.json")->status;
}

/* ---- talking --------------------------------------------------------------------------------- */

static void it_answers_and_ctrl_d_leaves_with_0(void **state) {
    (void)state;
    start("$S chat --temp 0");
    assert_non_null(strstr(
        term.seen, "squish-tiny (tier 0, context of 4096 tokens). /help lists commands, Ctrl-D leaves."));
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO "\r\n"));
    leave();
}

static void run_without_a_prompt_on_a_terminal_is_a_chat(void **state) {
    (void)state;
    start("$S run --temp 0 squish-tiny");
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void run_with_the_model_as_an_option_is_a_chat_too(void **state) {
    (void)state;
    start("$S run --temp 0 --model squish-tiny");
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void an_unknown_model_gets_the_nearest_names(void **state) {
    (void)state;
    const cli_result *r = sh("$S chat squish-tny");
    assert_int_equal(r->status, 3);
    assert_non_null(strstr(r->err, "no model 'squish-tny' (the nearest: squish-tiny"));
    assert_int_equal(sh("$S chat squish-tiny more")->status, 2);
}

static void a_second_message_sees_the_first_and_reuses_its_prefix(void **state) {
    (void)state;
    start("$S chat --temp 0");
    enter(JAPAN);
    enter("And of France?");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 4);
    assert_string_equal(role(all, 0), "user");
    assert_string_equal(role(all, 3), "assistant");
    json_decref(all);
    send_keys("/stats\r");
    expect("last prompt    ");
    expect(" tokens, ");
    expect(" of them reused");
    int prompt = 0, reused = 0;
    assert_int_equal(sscanf(strstr(term.seen, "last prompt"), "last prompt %d tokens, %d", &prompt, &reused),
                     2);
    assert_true(reused >= 15 && prompt > reused); /* the whole first prompt at least */
    expect("messages       4");
    expect(">>> ");
    leave();
}

static void system_message_of_the_command_line_comes_first(void **state) {
    (void)state;
    start("$S chat --temp 0 --system 'Be brief.'");
    enter("Hello");
    json_t *all = saved();
    assert_string_equal(role(all, 0), "system");
    assert_string_equal(content(all, 0), "Be brief.");
    assert_int_equal(json_array_size(all), 3);
    json_decref(all);
    leave();
}

/* ---- the line -------------------------------------------------------------------------------- */

static void arrows_move_in_the_line(void **state) {
    (void)state;
    start("$S chat --temp 0");
    enter("What is the capital of Jpan?" LEFT LEFT LEFT LEFT "a");
    assert_non_null(strstr(term.seen, TOKYO));
    json_t *all = saved();
    assert_string_equal(content(all, 0), JAPAN);
    json_decref(all);
    leave();
}

static void letters_outside_ascii_are_one_step_each_even_in_the_c_locale(void **state) {
    (void)state;
    start("$S chat --temp 0 -n 1");
    /* Backspace over one wide and one accented letter, and insert between others. */
    enter("gr\xc3\xbc\xc3\x9f" "e \xe6\x9d\xb1\xe4\xba\xac\x7f\x7f\xc3\xa9" LEFT LEFT "x");
    json_t *all = saved();
    assert_string_equal(content(all, 0), "gr\xc3\xbc\xc3\x9f" "ex \xc3\xa9");
    json_decref(all);
    leave();
}

static void the_up_arrow_brings_lines_of_this_session_and_of_earlier_ones(void **state) {
    (void)state;
    start("$S chat --temp 0");
    enter(JAPAN);
    enter("/set seed 3");
    enter(UP UP); /* the question again */
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 4);
    assert_string_equal(content(all, 2), JAPAN);
    json_decref(all);
    leave();
    start("$S chat --temp 0");
    enter(UP UP); /* /save, and before it the question */
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void the_history_file_is_for_its_owner_only_and_lines_come_back_as_they_were(void **state) {
    (void)state;
    start("$S chat --temp 0 -n 1");
    enter("back\\slash  two blanks \xc3\xbc \"quotes\" #");
    leave();
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/.squish/history", cli_folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    start("$S chat --temp 0 -n 1");
    enter(UP);
    json_t *all = saved();
    assert_string_equal(content(all, 0), "back\\slash  two blanks \xc3\xbc \"quotes\" #");
    json_decref(all);
    leave();
}

static void a_home_that_cannot_be_written_costs_the_history_only(void **state) {
    (void)state;
    cli_write("afile", "x", 1);
    start("env SQUISH_HOME=$T/afile/home $S chat --temp 0");
    assert_non_null(strstr(term.seen, "no history is kept"));
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void ctrl_c_at_the_prompt_empties_the_line_and_stays(void **state) {
    (void)state;
    start("$S chat --temp 0");
    send_keys("nonsense that is never sent");
    expect("never sent");
    send_keys(CTRL_C);
    expect("^C");
    expect(">>> ");
    send_keys(CTRL_C);
    expect(">>> ");
    enter(JAPAN);
    json_t *all = saved();
    assert_string_equal(content(all, 0), JAPAN);
    assert_string_equal(content(all, 1), TOKYO);
    json_decref(all);
    leave();
}

static void three_quotes_hold_a_message_of_many_lines(void **state) {
    (void)state;
    start("$S chat --temp 0 -n 1");
    send_keys("\"\"\"\r");
    expect("... ");
    send_keys("first\r");
    expect("... ");
    send_keys("/bye is no command here\r");
    expect("... ");
    enter("last\"\"\"");
    enter("\"\"\"on one line\"\"\"");
    send_keys("\"\"\"given up\r");
    expect("... ");
    send_keys(CTRL_C);
    expect(">>> ");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 4);
    assert_string_equal(content(all, 0), "first\n/bye is no command here\nlast");
    assert_string_equal(content(all, 2), "on one line");
    json_decref(all);
    leave();
}

/* ---- pastes ---------------------------------------------------------------------------------- */

/* 200 lines with this between them. */
static void lines200(char *out, size_t n, const char *end) {
    size_t at = 0;
    for (int i = 1; i <= 200; i++) at += (size_t)snprintf(out + at, n - at, "%sline %d", i > 1 ? end : "", i);
}

static void a_paste_of_200_lines_is_one_message(void **state) {
    (void)state;
    char text[8192], want[8192];
    lines200(text, sizeof text, "\r"); /* terminals send Return for the end of a line */
    lines200(want, sizeof want, "\n");
    start("$S chat --temp 0 -n 1");
    assert_non_null(strstr(term.seen, "\033[?2004h"));
    send_keys(PASTE_BEGIN);
    send_keys(text);
    send_keys("\r" PASTE_END);
    expect("[paste 1: 200 lines]");
    enter("");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(content(all, 0), want);
    json_decref(all);
    leave();
    assert_non_null(strstr(term.seen, "\033[?2004l"));
    assert_int_equal(sh("grep -q paste $T/.squish/history")->status, 1);
}

static void words_may_stand_around_a_paste_and_the_up_arrow_sends_it_again(void **state) {
    (void)state;
    start("$S chat --temp 0 -n 1");
    enter("Read: " PASTE_BEGIN "a\r\nb\n\nc" PASTE_END " and " PASTE_BEGIN "d\re" PASTE_END ".");
    enter(UP);
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 4);
    assert_string_equal(content(all, 0), "Read: a\nb\n\nc and d\ne.");
    assert_string_equal(content(all, 2), "Read: a\nb\n\nc and d\ne.");
    json_decref(all);
    leave();
}

static void a_short_paste_goes_into_the_line_and_is_not_sent_by_its_newline(void **state) {
    (void)state;
    start("$S chat --temp 0");
    send_keys(PASTE_BEGIN "What is the capital of\r" PASTE_END);
    expect("capital of");
    enter(" Japan?");
    assert_non_null(strstr(term.seen, TOKYO));
    json_t *all = saved();
    assert_string_equal(content(all, 0), JAPAN);
    json_decref(all);
    leave();
}

static void a_paste_while_an_answer_is_made_waits_for_the_prompt(void **state) {
    (void)state;
    start("env SQUISH_ISA=scalar $S chat --threads 1 --temp 5 --top-p 1 --seed 1 -n 30");
    send_keys("talk\r");
    usleep(300000);
    send_keys(PASTE_BEGIN "x\ry\rz" PASTE_END);
    expect("[stopped at 30 tokens");
    expect("[paste 1: 3 lines]");
    send_keys(CTRL_C);
    expect(">>> ");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 2);
    json_decref(all);
    leave();
}

/* ---- stopping -------------------------------------------------------------------------------- */

/* Temperature 5 with this seed draws no end token for 783 tokens; one scalar thread makes it slow. */
#define SLOW "env SQUISH_ISA=scalar $S chat --threads 1 --temp 5 --top-p 1 --seed 1 --chunk 4"

static void ctrl_c_in_decode_stops_the_answer_and_keeps_the_conversation(void **state) {
    (void)state;
    start(SLOW);
    send_keys("talk\r");
    expect_answer();
    send_keys(CTRL_C CTRL_C CTRL_C); /* an impatient user still has the conversation */
    expect("[stopped]");
    expect(">>> ");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(role(all, 1), "assistant");
    assert_true(strlen(content(all, 1)) > 0);
    json_decref(all);
    enter("/set temp 0");
    enter("/clear");
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void ctrl_c_in_prefill_takes_the_message_back(void **state) {
    (void)state;
    char text[8192];
    lines200(text, sizeof text, "\r");
    start(SLOW);
    send_keys(PASTE_BEGIN);
    send_keys(text);
    send_keys(PASTE_END "\r");
    expect("200 lines]\r\n");
    usleep(300000);
    send_keys(CTRL_C);
    expect("[stopped: the message was taken back, the up arrow brings it]");
    expect(">>> ");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 0);
    json_decref(all);
    enter("/set temp 0");
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void ctrl_c_while_loading_leaves_with_130_and_no_tier(void **state) {
    (void)state;
    assert_int_equal(sh("mkdir -p $T/int && cp -r models/squish-tiny $T/int/m")->status, 0);
    bool hit = false;
    for (int ms = 20; ms <= 600 && !hit; ms += 20) {
        assert_int_equal(sh("rm -rf $T/int/m-compressed")->status, 0);
        pty_start(&term, "$S chat --threads 1 $T/int/m", "xterm");
        usleep((useconds_t)ms * 1000);
        send_keys(CTRL_C);
        send_keys(CTRL_D); /* if it was too late, to leave */
        const int status = pty_wait(&term);
        hit = status == 130 && strstr(term.seen, "stopped") && !strstr(term.seen, ">>> ");
        if (hit)
            assert_int_equal(sh("find $T/int/m-compressed -name .build -prune -o -type f -size +0 -print "
                                "2>/dev/null | grep -q .")->status,
                             1);
    }
    assert_true(hit);
}

static void sigterm_puts_the_terminal_back(void **state) {
    (void)state;
    struct termios before, after;
    start("$S chat");
    tcgetattr(term.fd, &before);
    assert_false(before.c_lflag & ICANON); /* libedit reads key by key */
    kill(term.pid, SIGTERM);
    int status;
    waitpid(term.pid, &status, 0);
    tcgetattr(term.fd, &after);
    pty_read(&term, 200);
    assert_int_equal(WEXITSTATUS(status), 143);
    assert_true(after.c_lflag & ICANON);
    assert_true(after.c_lflag & ECHO);
    assert_non_null(strstr(term.seen, "\033[?2004l"));
    close(term.fd);
}

static void a_hung_up_terminal_ends_the_program(void **state) {
    (void)state;
    start("$S chat");
    close(term.fd);
    int status = 0;
    for (int i = 0; i < 100 && waitpid(term.pid, &status, WNOHANG) == 0; i++) usleep(50000);
    assert_int_equal(kill(term.pid, 0), -1);
}

static void a_resized_window_disturbs_nothing(void **state) {
    (void)state;
    start("$S chat --temp 0");
    send_keys("What is the capital ");
    expect("capital ");
    const struct winsize narrow = {.ws_row = 20, .ws_col = 30}, wide = {.ws_row = 50, .ws_col = 132};
    ioctl(term.fd, TIOCSWINSZ, &narrow);
    usleep(50000);
    ioctl(term.fd, TIOCSWINSZ, &wide);
    usleep(50000);
    enter("of Japan?");
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void a_dumb_terminal_gets_no_escape_codes_for_pastes(void **state) {
    (void)state;
    pty_start(&term, "$S chat --temp 0", "dumb");
    expect(">>> ");
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    assert_null(strchr(term.seen, '\033'));
    leave();
}

/* ---- slash commands -------------------------------------------------------------------------- */

static void help_lists_every_command(void **state) {
    (void)state;
    static const char *const names[] = {"/set",   "/system", "/save", "/load", "/clear",
                                        "/regen", "/stats",  "/help", "/bye"};
    start("$S chat");
    enter("/help");
    for (size_t i = 0; i < 9; i++) assert_non_null(strstr(term.seen, names[i]));
    leave();
}

static void bye_leaves_with_0(void **state) {
    (void)state;
    start("$S chat");
    send_keys("/bye\r");
    assert_int_equal(pty_wait(&term), 0);
}

static void an_unknown_slash_command_names_the_nearest(void **state) {
    (void)state;
    start("$S chat");
    send_keys("/stast\r");
    expect("unknown command /stast (did you mean /stats?)");
    expect(">>> ");
    send_keys("/frobnicate\r");
    expect("unknown command /frobnicate (/help lists them");
    expect(">>> ");
    leave();
}

static void set_lists_changes_and_checks_ranges(void **state) {
    (void)state;
    start("$S chat --min-p 0.125");
    send_keys("/set\r");
    expect("temperature        0.7 ");
    expect("top_k              0 ");
    expect("top_p              0.9 ");
    expect("min_p              0.125 ");
    expect("repeat_penalty     1 ");
    expect("seed               -1 ");
    expect("max_tokens         -1 ");
    expect(">>> ");
    static const char *const wrong[][2] = {
        {"/set temperature 9\r", "temperature: '9' is not a number from 0 to 5"},
        {"/set top_k 1.5\r", "top_k: '1.5' is not a whole number from -1 to 1000000"},
        {"/set tempertaure 1\r", "no setting 'tempertaure' (did you mean temperature?)"},
        {"/set frobnicate 2\r", "no setting 'frobnicate' (/set lists them)"},
    };
    for (size_t i = 0; i < 4; i++) {
        send_keys(wrong[i][0]);
        expect(wrong[i][1]);
        expect(">>> ");
    }
    enter("/set temp 0.25");
    enter("/set top-k = 40");
    enter("/set max_tokens 3");
    send_keys("/set\r");
    expect("temperature        0.25 ");
    expect("top_k              40 ");
    expect("max_tokens         3 ");
    expect(">>> ");
    send_keys("/set top_k\r");
    expect("top_k 40");
    expect(">>> ");
    send_keys(JAPAN "\r");
    expect("[stopped at 3 tokens, see /set max_tokens]");
    expect(">>> ");
    leave();
}

static void the_same_seed_gives_the_same_answer(void **state) {
    (void)state;
    start("$S chat --temp 2 -n 20");
    enter("/set seed 42");
    enter("talk");
    json_t *a = saved();
    enter("/regen");
    json_t *b = saved();
    assert_int_equal(json_array_size(b), 2);
    assert_string_equal(content(a, 1), content(b, 1));
    enter("/set seed 43");
    enter("/regen");
    json_t *other = saved();
    assert_string_not_equal(content(a, 1), content(other, 1));
    json_decref(a);
    json_decref(b);
    json_decref(other);
    leave();
}

static void regen_without_an_answer_says_so(void **state) {
    (void)state;
    start("$S chat");
    send_keys("/regen\r");
    expect("there is no answer to make again");
    expect(">>> ");
    leave();
}

static void system_shows_sets_and_removes(void **state) {
    (void)state;
    start("$S chat --temp 0 -n 1");
    send_keys("/system\r");
    expect("no system message");
    expect(">>> ");
    enter("hello");
    enter("/system Be brief.");
    send_keys("/system\r");
    expect("\nBe brief.");
    expect(">>> ");
    json_t *all = saved();
    assert_int_equal(json_array_size(all), 3);
    assert_string_equal(role(all, 0), "system");
    json_decref(all);
    enter("/clear"); /* keeps it */
    all = saved();
    assert_int_equal(json_array_size(all), 1);
    json_decref(all);
    enter("/system \"\"");
    all = saved();
    assert_int_equal(json_array_size(all), 0);
    json_decref(all);
    leave();
}

static void save_and_load_carry_a_conversation_over(void **state) {
    (void)state;
    start("$S chat --temp 0");
    enter(JAPAN);
    json_decref(saved());
    leave();
    start("$S chat --temp 0");
    send_keys("/load ~/talk.json\r");
    expect("loaded 2 messages");
    expect(">>> ");
    enter("/regen");
    json_t *all = saved(); /* over a conversation it may write */
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(content(all, 1), TOKYO);
    json_decref(all);
    /* What it saves is what squish template reads. */
    leave();
    const cli_result *r = sh("$S template --messages $T/talk.json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, TOKYO));
}

static void files_that_are_no_conversation_are_named_and_never_overwritten(void **state) {
    (void)state;
    cli_write("notes.txt", "precious", 8);
    cli_write("odd.json", "[{\"role\": \"user\"}]", 18);
    cli_write("object.json", "{}", 2);
    start("$S chat");
    static const char *const cases[][2] = {
        {"/load /no/such/file\r", "/no/such/file"},
        {"/load ~/notes.txt\r", "notes.txt: line 1"},
        {"/load ~/odd.json\r", "odd.json: message 0 is not"},
        {"/load ~/object.json\r", "object.json: not a JSON array of messages"},
        {"/load\r", "the name of a file is wanted"},
        {"/save\r", "the name of a file is wanted"},
        {"/save ~/notes.txt\r", "notes.txt is there and no conversation: choose another name"},
        {"/save /no/such/folder/x\r", "squish:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        send_keys(cases[i][0]);
        expect("squish:");
        expect(cases[i][1][0] == 's' ? "/no/such/folder" : cases[i][1]);
        expect(">>> ");
    }
    leave();
    assert_string_equal(sh("cat $T/notes.txt")->out, "precious");
}

static void a_full_context_is_said_and_clear_helps(void **state) {
    (void)state;
    start("$S chat --ctx 64 --temp 5 --top-p 1 --seed 1");
    send_keys("talk\r");
    expect("[the context of 64 tokens is full and the answer ends here: /clear begins anew]");
    expect(">>> ");
    send_keys("more\r");
    expect("the conversation with this message has ");
    expect("the context holds 64 (/clear begins anew");
    expect(">>> ");
    json_t *all = saved(); /* the message that did not fit was taken back, nothing was cut */
    assert_int_equal(json_array_size(all), 2);
    json_decref(all);
    enter("/clear");
    enter("/set temp 0");
    enter(JAPAN);
    assert_non_null(strstr(term.seen, TOKYO));
    leave();
}

static void control_characters_of_a_model_do_not_reach_the_terminal(void **state) {
    (void)state;
    cli_write("evil.json", "[{\"role\":\"system\",\"content\":\"a\\u001b]0;x\\u0007b\\u009bc\\td\"}]", 60);
    start("$S chat");
    enter("/load ~/evil.json");
    send_keys("/system\r");
    expect("a\xef\xbf\xbd]0;x\xef\xbf\xbd" "b\xef\xbf\xbd" "c");
    expect(">>> ");
    leave();
}

/* ---- without a terminal ---------------------------------------------------------------------- */

static void between_pipes_there_is_neither_prompt_nor_escape_code(void **state) {
    (void)state;
    const cli_result *r = sh("printf '%s\\n/set max_tokens 1\\n\\n%s' | $S chat --temp 0", JAPAN, JAPAN);
    assert_int_equal(r->status, 0);
    assert_string_equal(r->out, TOKYO "\nThe\n");
    assert_string_equal(r->err, "[stopped at 1 tokens, see /set max_tokens]\n");
}

static void between_pipes_three_quotes_and_commands_work(void **state) {
    (void)state;
    const cli_result *r = sh("printf '\"\"\"\\nWhat is the capital\\nof Japan?\\n\"\"\"\\n/save "
                             "%s/p.json\\n/bye\\nnever\\n' | $S chat --temp 0 -n 1",
                             cli_folder);
    assert_int_equal(r->status, 0);
    assert_null(strchr(r->out, '\033'));
    char path[512];
    snprintf(path, sizeof path, "%s/p.json", cli_folder);
    json_t *all = json_load_file(path, 0, NULL);
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(content(all, 0), "What is the capital\nof Japan?");
    json_decref(all);
}

static void between_pipes_a_message_without_an_answer_makes_the_status_1(void **state) {
    (void)state;
    const cli_result *r = sh("{ seq -s ' ' 300; echo '%s'; } | $S chat --ctx 64 --temp 0", JAPAN);
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "the context holds 64"));
    assert_string_equal(r->out, TOKYO "\n"); /* the next one is answered all the same */
    r = sh("printf 'a\\377b\\n' | $S chat");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "the message is not UTF-8 text"));
}

static void between_pipes_ctrl_c_leaves_with_130(void **state) {
    (void)state;
    const cli_result *r = sh("sleep 2 | $S chat & p=$!; sleep 0.5; kill -INT $p; wait $p");
    assert_int_equal(r->status, 130);
    r = sh(
        "{ echo talk; sleep 3; } | SQUISH_ISA=scalar $S chat --threads 1 --temp 5 --top-p 1 --seed 1 & p=$!;"
        "sleep 1; kill -INT $p; wait $p");
    assert_int_equal(r->status, 130);
    assert_non_null(strstr(r->err, "[stopped]"));
}

static void no_chat_history_is_kept_between_pipes(void **state) {
    (void)state;
    assert_int_equal(sh("echo '%s' | $S chat --temp 0", JAPAN)->status, 0);
    assert_int_equal(sh("test -e $T/.squish/history")->status, 1);
}

static void without_a_template_text_is_continued_and_a_note_says_so(void **state) {
    (void)state;
    assert_int_equal(sh("mkdir -p $T/raw && cp -r models/squish-tiny $T/raw/m && "
                        "printf '{\"tokenizer_class\": \"Qwen2Tokenizer\", \"eos_token\": \"<|im_end|>\"}' > "
                        "$T/raw/m/tokenizer_config.json")
                         ->status,
                     0);
    const cli_result *r = sh("echo 'The capital of Japan is' | $S chat --tier source --temp 0 -n 2 $T/raw/m");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->err, "this model has no chat template: each message is continued as text"));
    assert_string_equal(r->out, " Tokyo.\n");
    static const char source[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    cli_write("t.jinja", source, sizeof source - 1);
    r = sh("echo 'The capital of Japan is' | $S chat --tier source --temp 0 -n 2 --template $T/t.jinja "
           "$T/raw/m");
    assert_string_equal(r->out, " Tokyo.\n");
    assert_null(strstr(r->err, "no chat template"));
}

static void a_template_that_refuses_a_message_takes_it_back(void **state) {
    (void)state;
    static const char source[] =
        "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no such talk') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant{{ '\\n' }}";
    cli_write("r.jinja", source, sizeof source - 1);
    const cli_result *r = sh("printf 'bad\\n%s\\n' | $S chat --temp 0 --template $T/r.jinja", JAPAN);
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "no such talk"));
    assert_string_equal(r->out, TOKYO "\n");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(it_answers_and_ctrl_d_leaves_with_0),
        TEST(run_without_a_prompt_on_a_terminal_is_a_chat),
        TEST(run_with_the_model_as_an_option_is_a_chat_too),
        TEST(an_unknown_model_gets_the_nearest_names),
        TEST(a_second_message_sees_the_first_and_reuses_its_prefix),
        TEST(system_message_of_the_command_line_comes_first),
        TEST(arrows_move_in_the_line),
        TEST(letters_outside_ascii_are_one_step_each_even_in_the_c_locale),
        TEST(the_up_arrow_brings_lines_of_this_session_and_of_earlier_ones),
        TEST(the_history_file_is_for_its_owner_only_and_lines_come_back_as_they_were),
        TEST(a_home_that_cannot_be_written_costs_the_history_only),
        TEST(ctrl_c_at_the_prompt_empties_the_line_and_stays),
        TEST(three_quotes_hold_a_message_of_many_lines),
        TEST(a_paste_of_200_lines_is_one_message),
        TEST(words_may_stand_around_a_paste_and_the_up_arrow_sends_it_again),
        TEST(a_short_paste_goes_into_the_line_and_is_not_sent_by_its_newline),
        TEST(a_paste_while_an_answer_is_made_waits_for_the_prompt),
        TEST(ctrl_c_in_decode_stops_the_answer_and_keeps_the_conversation),
        TEST(ctrl_c_in_prefill_takes_the_message_back),
        TEST(ctrl_c_while_loading_leaves_with_130_and_no_tier),
        TEST(sigterm_puts_the_terminal_back),
        TEST(a_hung_up_terminal_ends_the_program),
        TEST(a_resized_window_disturbs_nothing),
        TEST(a_dumb_terminal_gets_no_escape_codes_for_pastes),
        TEST(help_lists_every_command),
        TEST(bye_leaves_with_0),
        TEST(an_unknown_slash_command_names_the_nearest),
        TEST(set_lists_changes_and_checks_ranges),
        TEST(the_same_seed_gives_the_same_answer),
        TEST(regen_without_an_answer_says_so),
        TEST(system_shows_sets_and_removes),
        TEST(save_and_load_carry_a_conversation_over),
        TEST(files_that_are_no_conversation_are_named_and_never_overwritten),
        TEST(a_full_context_is_said_and_clear_helps),
        TEST(control_characters_of_a_model_do_not_reach_the_terminal),
        TEST(between_pipes_there_is_neither_prompt_nor_escape_code),
        TEST(between_pipes_three_quotes_and_commands_work),
        TEST(between_pipes_a_message_without_an_answer_makes_the_status_1),
        TEST(between_pipes_ctrl_c_leaves_with_130),
        TEST(no_chat_history_is_kept_between_pipes),
        TEST(without_a_template_text_is_continued_and_a_note_says_so),
        TEST(a_template_that_refuses_a_message_takes_it_back),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
