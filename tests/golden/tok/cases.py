# SPDX-License-Identifier: Apache-2.0
#
# cases.py - texts that are hard to tokenize. Bytes stand for ill-formed UTF-8, which is read as U+FFFD.

CASES = [
    # plain text
    "", "a", " ", "  ", "   ", "\n", "\r", "\r\n", "\t", "\n\n", "\n \n", " \n ", "\r\n\r\n", "\t\t ", " \t\r\n x",
    "Hello", " Hello", "  Hello", "Hello ", "Hello  ", "Hello world", "Hello  world", "Hello\nworld", "Hello \n world",
    "Hello, world!", "The quick brown fox jumps over the lazy dog.", "don't stop", "It's 5 o'clock; we're late.",
    "WORLD", "wOrLd", "camelCaseIdentifier", "snake_case_identifier", "kebab-case-identifier", "SCREAMING_CASE",
    "a  b   c    d     e", "trailing spaces   ", "   leading spaces", "tabs\tand\tmore\t\ttabs", "line one\nline two\n",
    "para one\n\npara two\n\n\npara three", "dos line\r\nanother\r\n", "old mac\rline\r", "mixed\n\r\n\rends",
    "end with newline\n", "end with spaces and newline  \n", "  \n  \n  text", "x\n   y", "x \n\n  y", "\n\n\n\n x",
    " \u00a0x", "a\u00a0b", "a\u2003b", "a\u3000b", "\u3000\u3000x", "a\u2028b\u2029c", "a\u0085b", "a\u200bb", "\ufeffbom",
    "\x0b\x0c x", "a\x1fb", "a\x00b", "\x7f",
    # contractions
    "I'm you're he's she'll we've they'd can't", "I'M YOU'RE HE'S SHE'LL WE'VE THEY'D CAN'T", "I'm I'M i'M",
    "It'S'S", "'s", "'S", "'ll", "'LL", "'Ll", "'lL", "'re've", "''s", "'sx", "'tis", "x'", "x''y", "rock'n'roll",
    "d'accord l'\u00e9t\u00e9", "he\u2019s we\u2019ll", "'\u017f", "it'\u017f", "'\u017fs x'\u017f ", "\u017ftra\u017fe", "'\u212a",
    " 's", " 'll be", "O'Reilly's", "'d'd'd", "'ve 'VE 'Ve", "dogs' tails", "1's 2's", "'1", "'\n", "' s",
    # numbers
    "0", "12", "123", "1234", "12345", "1234567890", "3.14159", "1,000,000", "-42", "1e-10", "0xDEADBEEF", "2024-02-29",
    "12:34:56", "v1.2.3-rc4", "1st 2nd 3rd", "x1y2z3", "100%", "$19.99", " 7", "  77", "7 7  7", "\u0661\u0662\u0663\u0664",
    "\u00bd\u00bc\u00be", "\u2160\u2161\u2162", "x\u00b2 + y\u00b3", "\u2460\u2461", "\uff11\uff12\uff13\uff14", "\u0967\u0968\u0969",
    "999999999999999999999999", "1\u00a0234", "\U0001d7d8\U0001d7d9",
    # punctuation
    "...", "....", "?!", "!!!", "--", "---", "\u2014", "\u2026", "\u201cquoted\u201d", "(a)", "[b]", "{c}", "<d>", "a/b\\c", "a&b|c",
    "#include", "@user", "#tag", "a@b.co", "https://example.org/a?b=c&d=%20#e", "C:\\path\\file.txt", "~/.bashrc", "$HOME",
    "a.b.c", "e.g.", "U.S.A.", "\n!", "!\n", "!\r\n\r\n", "! \n", "?\n\n\nx", ".\n}", ");\n\t}", "*** bold ***", "`code`",
    "\u00bfqu\u00e9?", "\u00a1hola!", "\u20ac5", "\u00a35", "\u00a7 5", "\u00b6", "\u2022 item", "\u2192", "\u2260", "\u221e", "\u00ac", "x\u0301!", "_", "__init__",
    # code
    "int main(void) {\n    return 0;\n}\n", "def f(x):\n\treturn x ** 2\n", "for (int i = 0; i < n; ++i) a[i] += b[i];",
    "if x == None:\n        pass\n", "SELECT * FROM t WHERE a='b';", "<div class=\"x\">&nbsp;</div>", "{\"a\": [1, 2.5, null]}",
    "x->y::z<T>()", "// comment\n/* block */", "#!/bin/sh\nset -eu\n", "a = b if c else d", "let f = |x| x + 1;",
    "\tif (!p)\n\t\tgoto fail;\n", "regex: ^\\s*[a-z]+\\d{2,3}$", "    \n    \n", "printf(\"%d\\n\", 42);", "x=y", "a+=b-c*d/e%f^g",
    # Latin with marks, composed and not
    "caf\u00e9", "cafe\u0301", "na\u00efve", "nai\u0308ve", "\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u212b", "\u2126 \u212a", "stra\u00dfe",
    "\u1ebf", "e\u0302\u0301", "\u00ea\u0301", "e\u0301\u0302", "Ti\u1ebfng Vi\u1ec7t", "Tie\u0302\u0301ng Vie\u0323\u0302t", "\u1e69", "s\u0323\u0307", "s\u0307\u0323",
    "q\u0307\u0323", "a\u0315\u0300\u05ae\u0062", "\u0344", "\u0958", "\u0915\u093c", "\u0cc6\u0cc2\u0cd5", "\ufb01n", "\u01c4", "\u1e9b\u0323",
    "\u0301x", " \u0301", "a" + "\u0301" * 20, "a" + "\u0301\u0316" * 12 + "b",
    # other scripts
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0627\u0644\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629\u064f",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\u30ab\u30bf\u30ab\u30ca \u3072\u3089\u304c\u306a", "\uff76\uff9e", "\u304b\u3099", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u1100\u1161\u11a8", "\uac00\u11a8", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0", "\u1c92\u1c90", "\u0540\u0561\u0575\u0565\u0580\u0565\u0576", "\u1780\u17b6\u1793\u17cb\u178f\u17c2",
    "\u0f56\u0f7c\u0f51", "\u1019\u103c\u1014\u103a\u1019\u102c", "\u1200\u120d\u12c8", "\u4e2dEnglish\u6587123\u6df7\u5408", "abc\u4e2d\u6587 def", "\u4e2d \u6587", "\U00020000\U0002a6d6",
    "\U0001d504\U0001d505", "\u0250\u0251\u0252", "\u02b0\u02b1", "\uff21\uff22\uff23\uff41", "\uff01\uff1f", "\u00aa\u00ba", "\u13a0\uab70",
    # emoji
    "\U0001f600", "\U0001f600\U0001f601", "hi \U0001f44b\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1ef\U0001f1f5\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3",
    "\u2764\ufe0f", "\u263a", "x\U0001f999y", " \U0001f999 ", "\U0001f636\u200d\U0001f32b\ufe0f ok", "\u2705 done", "\U0001f680\n",
    # marks of SentencePiece, byte tokens spelled out
    "\u2581", "\u2581a", "a\u2581b", " \u2581 ", "a \u2581", "<0x41>", "<0x0A>", "<unk>", "<s>", "</s>", "\ufffd",
    # special and added tokens in text
    "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b", "<|im_end|><|im_end|>", "<|im_end", "<|im_end|",
    "<|im_<|im_end|>", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "<think>hm</think> ok", "x<think>", "<think", "think>",
    " <tool_response> ", "<TOOL_CALL>", "<|begin_of_text|>hi", "<|eot_id|>", "a  <LS>  b", "a  <RS>  b", "a<LR>b", " <LR> ",
    "WORD", "WORDS", "a WORD b", "aWORD", "WORD!", "_WORD", "WORD_", "\u00e9WORD", "(WORD)", "NORM", "a NORM b", "aNORMb",
    "N\u00d6RM", "NO\u0308RM", "  <LS><RS>  <LR>  ", "<LS>", "<RS>", "\n<LS>\n", "<RS>\t\n x", "AB", "ABC", "ABCD", "xABCDx", "ABAB", "ABCABD",
    "<RS> <sp>", "a <sp>b", "<s>hi</s>", "<s> hi </s>", "hi <s>", "  <s>",
    # long runs
    " " * 17, " " * 64, " " * 130, "\n" * 40, "a" * 100, "ab" * 150, "=" * 80, "-" * 33 + "\n", "x " * 60, "\u4e2d" * 120, "9" * 100,
    "\U0001f600" * 30, "\t" * 20 + "x", " \n" * 30, "the " * 50, "THE" * 50, "e\u0301" * 50, "=" * 20 + " " * 20 + "=" * 20,
    "loremipsumdolorsitametconsecteturadipiscingelitseddoeiusmodtemporincididuntutlaboreetdoloremagnaaliquautenimadminim",
    # ill-formed UTF-8
    b"\xff", b"a\xffb", b"\xc3", b"caf\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98 ok", b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xf4\x90\x80\x80", b"\x80\x80", b"ok \xe9t\xe9", b"\xe4\xb8\xad\xe4\xb8", b"\xf8\x88\x80\x80\x80", b"\xef\xbf\xbd\xff",
]
