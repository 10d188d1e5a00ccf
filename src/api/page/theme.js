// SPDX-License-Identifier: Apache-2.0
//
// theme.js - light or dark, decided before the first paint.
//
// A classic script in <head>: a module would run after the page was drawn once in the wrong colours. The choice is
// "auto" (follow the system), "light" or "dark"; the style sheet only ever sees the resolved one.
(() => {
    const system = window.matchMedia('(prefers-color-scheme: dark)');
    const stored = () => {
        try { return localStorage.getItem('squish-theme') || 'auto'; } catch { return 'auto'; }
    };
    let choice = stored();
    const apply = () => {
        const dark = choice === 'dark' || (choice === 'auto' && system.matches);
        document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    };
    system.addEventListener('change', apply);
    window.squishTheme = {
        get: () => choice,
        set(next) {
            choice = next;
            try { localStorage.setItem('squish-theme', next); } catch { /* private window: for this visit only */ }
            apply();
        },
    };
    apply();
})();
