/* SPDX-License-Identifier: Apache-2.0
 *
 * base_edit.c - distance between two short strings, for "did you mean".
 *
 * Optimal string alignment: insert, delete, replace and swap of neighbours cost one each. Three rows of the
 * table are enough, because a swap looks back two rows. */
#include "base/base.h"

#include <string.h>

enum { LENGTH_MAX = 63, TOO_LONG = 99 };

static int least(int a, int b) {
    return a < b ? a : b;
}

int sq_edit_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > LENGTH_MAX || m > LENGTH_MAX) return TOO_LONG;
    int rows[3][LENGTH_MAX + 1]; /* row i of the table lies in rows[i % 3] */
    for (size_t j = 0; j <= m; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = rows[i % 3];
        const int *up = rows[(i - 1) % 3], *up2 = rows[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int d = up[j - 1] + (a[i - 1] != b[j - 1]);
            d = least(d, least(up[j], now[j - 1]) + 1);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            now[j] = swapped ? least(d, up2[j - 2] + 1) : d;
        }
    }
    return rows[n % 3][m];
}
