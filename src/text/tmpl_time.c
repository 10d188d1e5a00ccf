/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_time.c - strftime for templates: UTC, English names, no locale and no time zone files.
 *
 * Days turn into a date by counting in years that begin in March, so that the leap day comes last. */
#include "text/tmpl_int.h"

#include <stdio.h>

typedef struct {
    int64_t year, days; /* days since 1970-01-01 */
    int month, day;     /* from 1 */
    int hour, minute, second;
    int weekday;        /* 0 = Sunday */
    int year_day;       /* from 0 */
} civil;

static const char *const weekdays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                       "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January", "February", "March", "April", "May", "June", "July", "August",
                                     "September", "October", "November", "December"};

static bool is_leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

static civil civil_from_unix(int64_t t) {
    const int64_t limit = 253402300799; /* the last second of year 9999, Python's last too */
    if (t > limit) t = limit;
    if (t < -62135596800) t = -62135596800; /* the first of year 1 */
    civil c = {.days = t / 86400};
    int64_t s = t % 86400;
    if (s < 0) s += 86400, c.days--;
    c.hour = (int)(s / 3600), c.minute = (int)(s / 60 % 60), c.second = (int)(s % 60);
    c.weekday = (int)(((c.days + 4) % 7 + 7) % 7);
    int64_t z = c.days + 719468; /* days since 0000-03-01 */
    int64_t era = z / 146097, in_era = z % 146097;
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    int64_t m = (5 * in_year + 2) / 153; /* 0 = March */
    c.day = (int)(in_year - (153 * m + 2) / 5 + 1);
    c.month = (int)(m < 10 ? m + 3 : m - 9);
    c.year = year + era * 400 + (c.month <= 2);
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    c.year_day = before[c.month - 1] + c.day - 1 + (c.month > 2 && is_leap(c.year));
    return c;
}

/* ISO 8601: the week holds the year's first Thursday. */
static int iso_week(const civil *c, int64_t *year) {
    int monday_based = (c->weekday + 6) % 7;
    int thursday = c->year_day - monday_based + 3; /* of this week, as a day of this year */
    *year = c->year;
    if (thursday < 0) {
        --*year;
        thursday += is_leap(*year) ? 366 : 365;
    } else if (thursday >= (is_leap(c->year) ? 366 : 365)) {
        ++*year;
        thursday -= is_leap(c->year) ? 366 : 365;
    }
    return thursday / 7 + 1;
}

/* A directive that is a number: its value, width and padding. */
static bool number_of(const civil *c, char d, int64_t *value, int *width, char *pad) {
    int64_t iso_year;
    *pad = '0';
    *width = 2;
    switch (d) {
        case 'Y': *value = c->year, *width = 4; break;
        case 'y': *value = c->year % 100; break;
        case 'C': *value = c->year / 100; break;
        case 'm': *value = c->month; break;
        case 'd': *value = c->day; break;
        case 'e': *value = c->day, *pad = ' '; break;
        case 'H': *value = c->hour; break;
        case 'k': *value = c->hour, *pad = ' '; break;
        case 'I': *value = (c->hour + 11) % 12 + 1; break;
        case 'l': *value = (c->hour + 11) % 12 + 1, *pad = ' '; break;
        case 'M': *value = c->minute; break;
        case 'S': *value = c->second; break;
        case 'f': *value = 0, *width = 6; break;
        case 'j': *value = c->year_day + 1, *width = 3; break;
        case 'u': *value = c->weekday ? c->weekday : 7, *width = 1; break;
        case 'w': *value = c->weekday, *width = 1; break;
        case 'U': *value = (c->year_day + 7 - c->weekday) / 7; break;
        case 'W': *value = (c->year_day + 7 - (c->weekday + 6) % 7) / 7; break;
        case 'V': *value = iso_week(c, &iso_year); break;
        case 'G': iso_week(c, value), *width = 4; break;
        case 'g': iso_week(c, value), *value %= 100; break;
        case 's': *value = c->days * 86400 + c->hour * 3600 + c->minute * 60 + c->second, *width = 1; break;
        default: return false;
    }
    return true;
}

static const char *text_of(const civil *c, char d) {
    switch (d) {
        case 'A': return weekdays[c->weekday];
        case 'B': return months[c->month - 1];
        case 'p': return c->hour < 12 ? "AM" : "PM";
        case 'P': return c->hour < 12 ? "am" : "pm";
        case 'n': return "\n";
        case 't': return "\t";
        case '%': return "%";
        case 'z':
        case 'Z': return ""; /* datetime.now() carries no zone */
        default: return NULL;
    }
}

/* Directives that stand for others. */
static const char *expansion_of(char d) {
    switch (d) {
        case 'D':
        case 'x': return "%m/%d/%y";
        case 'F': return "%Y-%m-%d";
        case 'R': return "%H:%M";
        case 'T':
        case 'X': return "%H:%M:%S";
        case 'r': return "%I:%M:%S %p";
        case 'c': return "%a %b %e %H:%M:%S %Y";
        default: return NULL;
    }
}

static bool put_directive(const civil *c, char d, char flag, sq_buf *out) {
    int64_t value;
    int width;
    char pad;
    const char *text = text_of(c, d);
    if (text) return sq_buf_puts(out, text), true;
    if (d == 'a') return sq_buf_append(out, weekdays[c->weekday], 3), true;
    if (d == 'b' || d == 'h') return sq_buf_append(out, months[c->month - 1], 3), true;
    if (!number_of(c, d, &value, &width, &pad)) return false;
    if (flag == '-') width = 1;
    if (flag == '_') pad = ' ';
    if (flag == '0') pad = '0';
    sq_buf_printf(out, pad == ' ' ? "%*lld" : "%0*lld", width, (long long)value);
    return true;
}

bool sq_tmpl_strftime(int64_t unix_time, const char *fmt, size_t n, sq_buf *out, char *bad) {
    const civil c = civil_from_unix(unix_time);
    for (size_t i = 0; i < n; i++) {
        if (fmt[i] != '%') {
            sq_buf_putc(out, fmt[i]);
            continue;
        }
        char flag = i + 1 < n && strchr("-_0", fmt[i + 1]) && fmt[i + 1] ? fmt[++i] : 0;
        char d = i + 1 < n ? fmt[++i] : 0;
        const char *more = expansion_of(d);
        *bad = d;
        if (more) {
            for (; *more; more++)
                if (*more != '%') sq_buf_putc(out, *more);
                else if (!put_directive(&c, *++more, 0, out)) return false;
        } else if (!put_directive(&c, d, flag, out)) {
            return false;
        }
    }
    return true;
}
