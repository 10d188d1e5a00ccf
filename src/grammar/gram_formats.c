/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_formats.c - the formats of JSON Schema strings as regular expressions (RFC 3339, 4122, 5321, 1123,
 * 2673, 4291, 3986, 3987, 6570, 6901; each over the whole string). */
#include "grammar/gram_int.h"

#include <string.h>

enum { HOST_MAX = 253, MAILBOX_MAX = 64 }; /* RFC 1123, 5321 */

#define DATE                                                                                                 \
    "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-" \
    "9]"                                                                                                     \
    "|2[0-8]))|([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[048]|[2468][048]|[13579][26])00)-02-29)"
#define TIME                                                                                                 \
    "(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,18})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])|23:" \
    "59:60("                                                                                                 \
    "\\.[0-9]{1,18})?([Zz]|[+-]00:00))"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(\\." OCTET "){3}"
#define H16 "[0-9A-Fa-f]{1,4}"
#define LS32 "(" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                                                 \
    "((" H16 ":){6}" LS32 "|::(" H16 ":){5}" LS32 "|(" H16 ")?::(" H16 ":){4}" LS32 "|((" H16 ":){0,1}" H16  \
    ")?::(" H16 ":){3}" LS32 "|((" H16 ":){0,2}" H16 ")?::(" H16 ":){2}" LS32 "|((" H16 ":){0,3}" H16        \
    ")?::" H16 ":" LS32 "|((" H16 ":){0,4}" H16 ")?::" LS32 "|((" H16 ":){0,5}" H16 ")?::" H16 "|((" H16     \
    ":){0,6}" H16 ")?::)"
/* A label has no "--" as its third and fourth character: what stands there is encoded, and would have to be
 * decoded. */
#define LETTER "[A-Za-z0-9]"
#define INNER "[A-Za-z0-9-]"
#define LABEL                                                                                                \
    "(" LETTER "{1,2}|" LETTER INNER "{1,2}" LETTER "|" LETTER INNER "(" LETTER INNER "|-" LETTER ")" INNER  \
    "{0,58}" LETTER ")"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define HOST LABEL "(\\." LABEL ")*"
/* Characters of URIs, and besides those of IRIs. */
#define PERCENT "%[0-9A-Fa-f]{2}"
#define WIDE                                                                                                 \
    "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{2FFFD}\\u{30000}-\\u{" \
    "3FFFD}"
#define NAME(more) "([A-Za-z0-9._~!$&'()*+,;=" more "-]|" PERCENT ")"
#define AUTHORITY(more) "//(" NAME(":" more) "*@)?(\\[" IPV6 "\\]|" NAME(more) "*)(:[0-9]*)?"
#define SEGMENTS(more) "(/" NAME(":@" more) "*)*"
#define ROOTED(more) "/(" NAME(":@" more) "+" SEGMENTS(more) ")?"
#define TAIL(more) "(\\?" NAME(":@/?" more) "*)?(#" NAME(":@/?" more) "*)?"
#define SCHEME "[A-Za-z][A-Za-z0-9+.-]*:"
#define ABSOLUTE(more)                                                                                       \
    SCHEME "(" AUTHORITY(more)                                                                               \
        SEGMENTS(more) "|" ROOTED(more) "|" NAME(":@" more) "+" SEGMENTS(more) "|)" TAIL(more)
#define RELATIVE(more)                                                                                       \
    "(" AUTHORITY(more) SEGMENTS(more) "|" ROOTED(more) "|" NAME("@" more) "+" SEGMENTS(more) "|)" TAIL(more)
#define POINTER "(/([^~/]|~[01])*)*"
#define VARIABLE "([A-Za-z0-9_]|" PERCENT ")(\\.?([A-Za-z0-9_]|" PERCENT "))*(:[1-9][0-9]{0,3}|\\*)?"

/* A format is its parts in turn, each of at most so many characters (0: what its expression says). */
typedef struct {
    const char *name;
    struct {
        const char *regex;
        uint32_t chars_max;
    } parts[3];
} format;

static const format formats[] = {
    {"date", {{DATE, 0}}},
    {"time", {{TIME, 0}}},
    {"date-time", {{DATE "[Tt]" TIME, 0}}},
    {"duration",
     {{"P([0-9]+W|([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)(T([0-9]+H([0-9]+M([0-9]+S)?)?"
       "|[0-9]+M([0-9]+S)?|[0-9]+S))?|T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))",
       0}}},
    {"email", {{ATOM "(\\." ATOM ")*", MAILBOX_MAX}, {"@", 0}, {HOST, HOST_MAX}}},
    {"hostname", {{HOST, HOST_MAX}}},
    {"ipv4", {{IPV4, 0}}},
    {"ipv6", {{IPV6, 0}}},
    {"uuid", {{"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", 0}}},
    {"uri", {{ABSOLUTE(""), 0}}},
    {"uri-reference", {{ABSOLUTE("") "|" RELATIVE(""), 0}}},
    {"iri", {{ABSOLUTE(WIDE), 0}}},
    {"iri-reference", {{ABSOLUTE(WIDE) "|" RELATIVE(WIDE), 0}}},
    {"uri-template",
     {{"([!#$&'()*+,./0-9:;=?@A-Z\\[\\]_a-z~" WIDE "-]|" PERCENT "|\\{[+#./;?&=,!@|]?" VARIABLE "(," VARIABLE
       ")*\\})*",
       0}}},
    {"json-pointer", {{POINTER, 0}}},
    {"relative-json-pointer", {{"(0|[1-9][0-9]*)(#|" POINTER ")", 0}}},
    {"byte", {{"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", 0}}},
};

bool gram_format_is_beyond(const char *name) {
    return strcmp(name, "idn-email") == 0 || strcmp(name, "idn-hostname") == 0 || strcmp(name, "regex") == 0;
}

static const format *find(const char *name) {
    for (size_t i = 0; i < SQ_COUNT(formats); i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

bool gram_format_is_known(const char *name) { return find(name) != NULL; }

gram_term gram_format(gram_pool *p, const char *name, gram_spelling spelling) {
    const format *f = find(name);
    gram_term t = GRAM_EPS;
    for (size_t i = SQ_COUNT(f->parts); i-- > 0;) {
        const char *regex = f->parts[i].regex;
        if (!regex) continue;
        gram_term part = gram_regex(p, regex, strlen(regex), spelling, true, "format");
        if (f->parts[i].chars_max > 0)
            part = gram_and(p, part, gram_rep(p, gram_any_char(p, spelling), 0, f->parts[i].chars_max));
        t = gram_cat(p, part, t);
    }
    return t;
}
