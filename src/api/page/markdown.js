// SPDX-License-Identifier: Apache-2.0
//
// markdown.js - a model's Markdown as DOM, with nothing in it that acts.
//
//   text -> marked (raw HTML becomes visible text) -> DOMPurify (short allow-list) -> highlighting of known languages
//
// Three fences, each enough alone: HTML in the text is escaped before it is rendered, the result passes DOMPurify,
// and the server's Content-Security-Policy forbids inline code and foreign addresses. The libraries are whatever the
// build machine had; without them text is shown as text, with code blocks set apart.
import { el, copyText, icon } from './dom.js';

const { marked, DOMPurify: purify, hljs } = globalThis;
const RICH_MAX = 400000;      // characters; beyond it rendering would stall the page, so it is shown as text
const HIGHLIGHT_MAX = 60000;

const ALLOWED = {
    ALLOWED_TAGS: ['p', 'br', 'hr', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'strong', 'em', 'del', 'code', 'pre', 'a',
        'span', 'blockquote', 'ul', 'ol', 'li', 'table', 'thead', 'tbody', 'tr', 'th', 'td'],
    ALLOWED_ATTR: ['href', 'title', 'align', 'start', 'class'],
    ADD_URI_SAFE_ATTR: ['align', 'start'], // their values are no addresses; without this they are taken for some
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
    RETURN_DOM_FRAGMENT: true,
};
const CLASS = /^(?:language-[\w+#.-]{1,40}|hljs(?:-[\w-]+)?)$/;

const escapeHtml = (s) => s.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;').replaceAll("'", '&#39;');

/* Renderers get a string in older versions of marked and a token in newer ones. */
const field = (first, name) => (typeof first === 'object' && first !== null ? first[name] : first);

function setUp() {
    marked.use({
        gfm: true, breaks: true, headerIds: false, mangle: false,
        renderer: {
            html: (t) => escapeHtml(String(field(t, 'text') ?? '')),
            checkbox: (t) => (field(t, 'checked') ? '☑ ' : '☐ '),
            // No picture is fetched from anywhere: its address is offered as a link.
            image(t, title, text) {
                const label = escapeHtml(String((typeof t === 'object' ? t.text : text) || 'picture'));
                return `<a href="${escapeHtml(String(field(t, 'href') ?? ''))}">${label}</a>`;
            },
        },
    });
    purify.addHook('afterSanitizeAttributes', (node) => {
        if (node.hasAttribute?.('class')) {
            const kept = [...node.classList].filter((c) => CLASS.test(c));
            if (kept.length) node.setAttribute('class', kept.join(' ')); else node.removeAttribute('class');
        }
        if (node.nodeName === 'A' && node.hasAttribute('href')) {
            node.setAttribute('target', '_blank');
            node.setAttribute('rel', 'noopener noreferrer nofollow');
        }
    });
}

/* Are the libraries there, and does the sanitiser do its work? One that throws or lets something through (a library
 * of another version, a broken package) is as good as none. */
function probe() {
    if (!marked?.lexer || !purify?.isSupported) return false;
    try {
        setUp();
        const seen = purify.sanitize('<p id="a" data-a="b">x<video></video><b>z</b></p>', ALLOWED);
        return seen.childElementCount === 1 && seen.firstChild.attributes.length === 0 && seen.textContent === 'xz'
            && seen.querySelector('video, b') === null;
    } catch {
        return false;
    }
}
export const isRich = probe();

/* hljs 9 takes (name, text), later ones (text, {language}). The result is markup, so it is purified as well. */
function highlighted(text, language) {
    if (!isRich || !hljs?.getLanguage?.(language) || text.length > HIGHLIGHT_MAX) return null;
    try {
        const old = Number.parseInt(hljs.versionString ?? '9', 10) < 10;
        const result = old ? hljs.highlight(language, text, true)
            : hljs.highlight(text, { language, ignoreIllegals: true });
        return purify.sanitize(result.value, ALLOWED);
    } catch {
        return null;
    }
}

/* A block of code with its language and a button to copy it. The scrolling part can be reached by keyboard. */
export function codeBlock(text, language) {
    const label = el('span', { class: 'copy-label' }, 'Copy');
    const button = el('button', { type: 'button', class: 'code-copy', 'aria-label': 'Copy code' }, icon('copy'), label);
    button.addEventListener('click', async () => {
        label.textContent = (await copyText(text)) ? 'Copied' : 'Not copied';
        setTimeout(() => { label.textContent = 'Copy'; }, 1500);
    });
    const code = el('code', {}, highlighted(text, language) ?? text);
    return el('div', { class: 'code' },
        el('div', { class: 'code-bar' }, el('span', {}, language || 'text'), button),
        el('pre', { tabindex: '0', role: 'group', 'aria-label': `Code${language ? ` in ${language}` : ''}` }, code));
}

function dressCode(root) {
    for (const pre of root.querySelectorAll('pre')) {
        const code = pre.querySelector('code');
        const name = [...(code?.classList ?? [])].find((c) => c.startsWith('language-'))?.slice(9) ?? '';
        pre.replaceWith(codeBlock(pre.textContent.replace(/\n$/, ''), name));
    }
}

function dressTables(root) {
    for (const table of root.querySelectorAll('table')) {
        const frame = el('div', { class: 'table-frame', tabindex: '0', role: 'group', 'aria-label': 'Table' });
        table.replaceWith(frame);
        frame.append(table);
    }
}

function richBlock(token) {
    const block = el('div', { class: 'block' });
    block.append(purify.sanitize(marked.parser([token]), ALLOWED));
    dressCode(block);
    dressTables(block);
    return block;
}

/* Without libraries: paragraphs as they are, fenced code set apart. */
function plainBlocks(text) {
    const parts = text.split(/^(```[^\n]*\n[\s\S]*?(?:^```[ \t]*$|$(?![\s\S])))/m);
    return parts.filter((part) => part.trim()).map((part) => {
        const code = /^```([^\n]*)\n([\s\S]*?)\n?(?:```[ \t]*)?$/.exec(part);
        if (code) return { raw: part, make: () => el('div', { class: 'block' }, codeBlock(code[2], code[1].trim())) };
        return { raw: part, make: () => el('div', { class: 'block plain' }, part.trim()) };
    });
}

function richBlocks(text) {
    return marked.lexer(text).filter((t) => t.type !== 'space')
        .map((token) => ({ raw: token.raw, type: token.type, make: () => richBlock(token) }));
}

function blocksOf(text) {
    if (!isRich || text.length > RICH_MAX) return plainBlocks(text);
    try { return richBlocks(text); } catch { return plainBlocks(text); }
}

/* Shows a growing text in `root`. Blocks that did not change keep their elements: a selection survives, code is not
 * highlighted twice, and a long answer costs the same per token as a short one. */
export class MarkdownView {
    constructor(root) {
        this.root = root;
        this.shown = []; // kind and raw text of each child
    }

    render(text) {
        const blocks = blocksOf(text);
        let same = 0;
        // The same text can become another kind of block when the next line arrives (a heading, a table).
        const key = (b) => `${b.type ?? ''}\n${b.raw}`;
        while (same < blocks.length && this.shown[same] === key(blocks[same])) same++;
        while (this.root.childNodes.length > same) this.root.lastChild.remove();
        this.root.append(...blocks.slice(same).map((b) => {
            try { return b.make(); } catch { return el('div', { class: 'block plain' }, b.raw); }
        }));
        this.shown = blocks.map(key);
    }
}
