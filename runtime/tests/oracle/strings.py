"""Strings whose tokens are compared: many scripts, emoji, code, whitespace, control characters, and where UTF-8 changes.

Some are written out, the rest follow from rules; nothing is random.
"""

SCRIPTS = {
    "Latin": "The quick brown fox jumps over the lazy dog, doesn't it?",
    "German": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich; STRASSE, Straße, ẞ.",
    "French": "Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis. L'été, c'est l'œuvre…",
    "Spanish": "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia; ¿añoraba a su niño? ¡Sí!",
    "Portuguese": "À noite, vovô Kowalsky vê o ímã cair no pé do pinguim queixoso: não há coração.",
    "Polish": "Pchnąć w tę łódź jeża lub ośm skrzyń fig.",
    "Czech": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Hungarian": "Árvíztűrő tükörfúrógép.",
    "Turkish": "Pijamalı hasta yağız şoföre çabucak güvendi. İstanbul, ılık, DİYARBAKIR",
    "Icelandic": "Kæmi ný öxi hér ykist þjófum nú bæði víl og ádrepa.",
    "Vietnamese": "Con sói nâu nhảy qua con chó lười. Đường phố Hà Nội rất đẹp.",
    "Yoruba": "Ìwò̩fà ń yò̩ séji tó gbojúmó̩, ó hàn pákànpò̩ gan-an.",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ὦ ξεῖν’, ἀγγέλλειν Λακεδαιμονίοις",
    "Russian": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ukrainian": "Чуєш їх, доцю, га? Кумедна ж ти, прощайся без ґольфів!",
    "Serbian": "Љубазни фењерџија чађавог лица хоће да ми покаже штос.",
    "Church Slavonic": "Ѡ҆́ч҃е на́шъ, и҆́же є҆сѝ на небесѣ́хъ",
    "Georgian": "ბატონო, აქ ცვრიან თოვლს ხედავ? ᲡᲐᲥᲐᲠᲗᲕᲔᲚᲝ",
    "Armenian": "Բել դղյակի ձախ ժամն օֆ ազգությանը ցպահանջ չճշտած վնաս էր եւ փառք։",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה. בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "Yiddish": "אַ שפּראַך איז אַ דיאַלעקט מיט אַן אַרמיי און פֿלאָט",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق. بِسْمِ ٱللَّهِ",
    "Persian": "بر اثر چنین تلقین و شست‌وشوی مغزی جامعی، سطح و پایه‌ی ذهن و فهم و نظر بعضی اشخاص واژگونه و معکوس می‌شود. ۱۲۳",
    "Urdu": "ٹھنڈ میں، ایک قحط زدہ گاؤں سے گذرتے وقت",
    "Syriac": "ܐܒܘܢ ܕܒܫܡܝܐ ܢܬܩܕܫ ܫܡܟ",
    "Amharic": "ሰማይ አይታረስ ንጉሥ አይከሰስ። ፩፪፫",
    "Hindi": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले विष्णुवतार भगवान श्रीराम। १२३",
    "Bengali": "আমি কাঁচ খেতে পারি, তাতে আমার কোনো ক্ষতি হয় না। ১২৩",
    "Tamil": "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம். ௧௨௩",
    "Telugu": "నేను గాజు తినగలను మరియు అలా చేసినా నాకు ఏమి ఇబ్బంది లేదు",
    "Kannada": "ಬಾ ಇಲ್ಲಿ ಸಂಭವಿಸು ಇಂದೆನ್ನ ಹೃದಯದಲಿ",
    "Malayalam": "എനിക്ക് ഗ്ലാസ് തിന്നാം. അതെന്നെ വേദനിപ്പിക്കില്ല.",
    "Sinhala": "මට වීදුරු කෑමට හැකියි. එයින් මට කිසි හානියක් සිදු නොවේ.",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓",
    "Lao": "ຂອ້ຍກິນແກ້ວໄດ້ໂດຍທີ່ມັນບໍ່ໄດ້ເຮັດໃຫ້ຂອ້ຍເຈັບ",
    "Khmer": "ខ្ញុំអាចញុំកញ្ចក់បាន ដោយគ្មានបញ្ហារ ១២៣",
    "Burmese": "သီဟိုဠ်မှ ဉာဏ်ကြီးရှင်သည် အာယုဝဍ္ဎနဆေးညွှန်းစာကို",
    "Tibetan": "ཤེལ་སྒོ་ཟ་ནས་ང་ན་གི་མ་རེད།",
    "Mongolian": "ᠪᠢ ᠰᠢᠯᠢ ᠢᠳᠡᠶᠦ ᠴᠢᠳᠠᠨᠠ ᠂ ᠨᠠᠳᠤᠷ ᠬᠣᠤᠷᠠᠳᠠᠢ ᠪᠢᠰᠢ",
    "Chinese": "視野無限廣，窗外有藍天。我能吞下玻璃而不伤身体。",
    "Han outside the first plane": "𠜎𠜱𠝹𠱓𠱸𠲖𠳏 𪚥 𬺰",
    "Japanese": "いろはにほへと ちりぬるを。鳥啼く声す夢覚ませ。ﾊﾝｶｸ カタカナ、ｱｲｳ",
    "Korean": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. ㄱㄴㄷ",
    "Hangul of single letters": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "Cherokee": "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꮳꮃꭹ",
    "Inuktitut": "ᐊᓕᒍᖅ ᓂᕆᔭᕌᖓᒃᑯ ᓱᕋᙱᑦᑐᓐᓇᖅᑐᖓ",
    "Ogham": "᚛᚛ᚉᚑᚅᚔᚉᚉᚔᚋ ᚔᚈᚔ ᚍᚂᚐᚅᚑ ᚅᚔᚋᚌᚓᚅᚐ᚜",
    "Runes": "ᛁᚳ᛫ᛗᚨᚷ᛫ᚷᛚᚨᛋ᛫ᛖᚩᛏᚪᚾ᛫ᚩᚾᛞ᛫ᚻᛁᛏ",
    "Gothic": "𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𐌹̈𐍄𐌰𐌽",
    "Cuneiform": "𒀭𒈹 𒂗𒆤 𒐕𒐖",
    "Hieroglyphs": "𓀀𓁐𓃭 𓆣",
    "Braille": "⡍⠔⠙ ⠊ ⠙⠕⠝⠰⠞ ⠍⠑⠁⠝",
    "Deseret": "𐐔𐐯𐑅𐐨𐑉𐐯𐐻",
    "Mathematics": "∮ E⋅da = Q, n → ∞, ∑ f(i) = ∏ g(i), ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β; 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 ½⅓¾ x² H₂O",
    "Phonetics": "[ˈaɪ pʰiː ˈeɪ] ð ɸ ʃ ʒ ŋ ˌɪntəˈnæʃənəl",
    "Full width": "ＦＵＬＬ　ＷＩＤＴＨ　１２３！？",
    "Mixed": "He said «привет» to 田中さん and שלום to أحمد — naïve café №7 ™ © €100 £5 ¥300 ₹20 ₿1",
}

EMOJI = [
    "😀", "😀😀", "a😀b", " 😀 ", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🇩🇪🇫🇷🇯🇵", "🇩", "👩🏿‍🚀", "❤️", "❤", "☎︎", "1️⃣#️⃣*️⃣",
    "👨‍", "‍👨", "🧑🏻‍❤️‍💋‍🧑🏿", "\U0001fae8\U0001fabf", "\U0001fac6", "\ufe0f", "\u200d", "🫶🏾 ok?", "(╯°□°)╯︵ ┻━┻", "¯\\_(ツ)_/¯", "ʕ•ᴥ•ʔ", "★彡☆",
]

CODE = [
    "fn main() {\n    println!(\"Hello, {}!\", name);\n}\n",
    "def f(x, *args, **kw):\n\treturn [y ** 2 for y in args if y != x] or None  # why\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 3; }\n",
    "#include <stdio.h>\r\nint main(void)\r\n{\r\n\tputs(\"\\x41\\n\");\r\n}\r\n",
    "const f = async ({a, ...rest}) => `${a?.b ?? 'none'}` === rest;",
    "SELECT a.*, COUNT(*) FROM t AS a WHERE a.id IN (1,2,3) GROUP BY 1 HAVING COUNT(*)>=10;--",
    "<!DOCTYPE html><html lang=\"en\"><body class='x'>&nbsp;&amp;<br/></body></html>",
    "{\"a\": [1, 2.5e-10, -0, true, null], \"b\": {\"c\": \"\\u00e9\\\\\"}}",
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a-b\n  labels: {app: \"x\"}\nspec:\n- &a !!str 'x'\n",
    "$ curl -sSL https://example.com/a?b=c&d=%20#e | tee >(wc -l) 2>&1 && echo \"$?\"",
    "git commit -m 'fix: don''t' --author=\"A <a@example.com>\"",
    "^(?:[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\\.[a-z]+)*)@\\d{1,3}\\b$",
    "\\documentclass{article}\\begin{equation}\\int_0^\\infty e^{-x^2}\\,dx=\\frac{\\sqrt\\pi}{2}\\end{equation}",
    "+++++[>+++++<-]>.", "x = y if z else w; x //= 3; x @= m; x := 1; x <<= 2; x <=> y; x !== y",
    "public static <T extends Comparable<? super T>> void sort(List<T> l) throws E { }",
    "0xDEADBEEF 0b1010 0o777 1_000_000 1e9 3.14159f 10u64 'a' b'\\0' r#\"x\"#",
    "camelCaseWord snake_case_word SCREAMING_SNAKE kebab-case-word dot.case.word PascalCase HTTPServer2Go",
    "C:\\Users\\x\\file.txt ../../etc/passwd ~/x /usr/lib64/../bin",
    "diff --git a/x b/x\n@@ -1,3 +1,4 @@\n-old\n+new\n \\ No newline at end of file\n",
    "MOV EAX, [EBX+4*ECX-0x10] ; load\nJNZ .loop\n", "| a | b |\n|:--|--:|\n| `x` | **y** |\n\n- [ ] z\n> q\n\n```sh\nls\n```\n",
    "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0IQ==", "d41d8cd98f00b204e9800998ecf8427e", "550e8400-e29b-41d4-a716-446655440000",
    "192.168.0.1:8080 [2001:db8::1]:443 aa:bb:cc:dd:ee:ff", "\x1b[1;31mred\x1b[0m plain\x1b]0;t\x07",
]

NUMBERS = [
    "0", "7", "42", "007", "100", "1000", "12345", "1234567890", "3.14", "-1", "+49 (0)30 123456", "1,000,000.00", "1e-5",
    "2024-02-29T23:59:60Z", "12:34:56.789", "50%", "$19.99", "№5", "x1y2z3", "3rd 21st", "1/2", "١٢٣٤٥", "१२३", "一二三四五",
    "ⅠⅡⅢⅣ", "①②③", "¹²³", "²x", "½", "１２３", "𝟏𝟐𝟑", "0" * 50, "9" * 199, "1 2 3 4 5 6 7 8 9", "1  2   3", " 1", "  12", "1 ",
]

CONTRACTIONS = [
    "I'm you're he's we've they'll I'd don't", "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T", "'s 't 're 've 'm 'll 'd", "''s", "'", "''",
    "' s", "'sa", "x's's", "rock'n'roll", "l'l'll", "'r", "'rex", "'veto", "'LL", "I’m you’re don’t", "'ſ", "\n's", " 's", "1's", "é's",
]

SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b",
    "a <|im_end|> b", "  <|im_end|>  ", "<|im_end|><|im_end|>", "<|im_start|", "|im_start|>", "<|im_start |>", "< |im_start|>",
    "<|IM_START|>", "<<|im_start|>>", "<|im_<|im_end|>start|>", "<repo_name>a/b<file_sep>x.py\ncode", "<reponame>", "<filename>f<gh_stars>100",
    "<issue_start><issue_comment>x<issue_closed>", "<jupyter_start><jupyter_text>a<jupyter_code>b<jupyter_output>c<jupyter_script>",
    "<empty_output>", "<unk>", "<s></s>", "<pad>", "[INST] x [/INST]", "<think>x</think>", "<0x41>", "<|im_end|>\u0301", "\u200d<|im_end|>",
    "1<|im_end|>2", "\n<|im_end|>\n", "é<|im_start|>é", "<|im_start|>" * 20, "<|im_end|" + "|" * 9 + ">", "<fim_prefix>a<fim_suffix>b<fim_middle>",
]

BYTE_SPELLINGS = ["Ġ", "Ċ", "ĠĠ", "Ġthe", "Ċ\n", "aĠb", "ĉ", "Ã©", "Âł", "ł", "▁the", "##ing", "Ń", "ġĢĂ"]

# The last character of each length in UTF-8 and the first of the next, what surrounds the surrogates, and the end.
EDGES = [
    "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uf8ff", "\ufdd0", "\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0001fffe",
    "\U00020000", "\U0002fa1d", "\U0003134a", "\U0003ffff", "\U00040000", "\U000e0001", "\U000e0100", "\U000f0000", "\U000fffff",
    "\U00100000", "\U0010ffff", "a\U0010ffffb", "\U00040000\U00040001\U00080000", "\ufeff", "\ufeffBOM", "x\ufffdy", "\ufffd\ufffd",
    "\U0001e900\U0001e922", "\u0378", "\u2fe0", "\ua7cb", "\u1c89\u1c8a", "\U00016d40", "\U00010d40\U00010d41",
]

WHITESPACE = [" ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u180e", "\u2000",
              "\u2003", "\u2009", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000"]

COMBINING = [
    "e\u0301", "\u00e9", "e\u0301\u0302\u0303", "\u0301", " \u0301", "\u0301e", "a\u0323\u0307", "a\u0307\u0323", "q\u0307\u0323", "\u212b\u00c5A\u030a",
    "Z" + "".join(map(chr, range(0x300, 0x340))) + "algo", "\u0915\u094d\u0937", "\u0e01\u0e33", "o\u0308\u0304", "\ufb03 \ufb01 \u01c6", "x\u20dd", "\u05e9\u05c1\u05bc",
    "i\u0307 I\u0307 \u0130 \u0131", "\u1e9b\u0323", "\u0344", "\u3099\u304b\u3099", "1\u0301", "1\u20e3", "\u0301\u0301 \u0301",
]

DIRECTIONS = [
    "\u202eabc\u202c", "\u2067שלום\u2069 abc", "abc \u200fdef\u200e", "عربي English عربي 123 عبري", "(שלום)", "\u061c\u0623", "\u200c\u200d\u200e\u200f",
    "\u2066a\u2067b\u2068c\u2069", "א1ב2ג3", "٪١٠",
]

PROSE = [
    "", "a", "A", "The", " the", "  the", "the ", "the  ", "Hello, world!", "hello world", "HELLO WORLD", "Hello,world!", "Hello ,  world !",
    "...", "…", "....", "?!", "!!!", "--", "—", "–", "“quoted”", "\"quoted\"", "'quoted'", "(a)[b]{c}<d>", "a.b.c", "e.g., i.e., etc.",
    "foo@example.com", "https://example.com/path?x=1#y", "#hashtag @mention", "50€", "A\u00adB", "super\u00adcali\u00adfragilistic", "x\u0000y",
    "antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaftskapitän", "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "AbCdEfGhIjKlMnOpQrStUvWxYz", "zzzzzzz qqqq xxxx", "the the the the", "ab" * 40, "\\n\\t\\\\", "a\\ b", "\"\"\"",
]


def long_runs():
    """Runs that a merge loop could be slow or wrong on."""
    for piece, times in [("a", 1000), (" ", 500), ("\n", 300), ("\t", 100), ("=", 300), ("-", 257), ("_", 64), ("ha", 300), ("é", 200),
                         ("日", 200), ("😀", 100), (" a", 300), ("1", 300), ("\u0301", 100), ("\x00", 50), ("!?", 150), (".\n", 100),
                         ("\r\n", 100), (" \n", 100), ("lorem ipsum dolor sit amet, ", 60), ("\U000f0000", 20), ("\x04", 9)]:
        yield piece * times


def whitespace():
    """Every kind of it alone, between letters, doubled, before and after."""
    for space in WHITESPACE:
        yield f"a{space}b{space}{space}c {space} d{space}"
    yield from ["  ", "   ", "    a", "\n\n", "\n\n\n a", "\n \n", " \n ", "\t\t\ta", "a\n    b\n        c\n", "a \n", "a\n ", "\r\n\r\n", "\r\r", "\n\r", "a  b   c    d",
                " \t \n", "\u3000\u3000a", "\xa0\xa0a", "a\u200bb", "    ", "\t ", " \t", "\n\t\n", " .", "  .", "   .\n\n  ,"]


def controls():
    """Every control character alone, and between characters of each class."""
    for code in [*range(0x20), 0x7F, 0x80, 0x85, 0x9F]:
        yield f"{chr(code)}"
        yield f"a{chr(code)}b 1{chr(code)}2!{chr(code)}!{chr(code)}{chr(code)}"
    yield "".join(map(chr, range(0x20)))
    yield "".join(map(chr, range(0x7F, 0xA1)))


def blocks():
    """Sixteen neighbouring characters at regular distances through all planes, without surrogates."""
    for start in [*range(0x0100, 0xD800, 0x0700), *range(0xE000, 0x10000, 0x0700), *range(0x10000, 0x20000, 0x0B50), 0x20000, 0x2A700, 0x30000, 0xE0020, 0x100000]:
        yield "".join(map(chr, range(start, start + 16)))


def strings():
    """All of them, each once, in a fixed order."""
    written = [PROSE, SCRIPTS.values(), EMOJI, CODE, NUMBERS, CONTRACTIONS, SPECIAL, BYTE_SPELLINGS, EDGES, COMBINING, DIRECTIONS]
    ruled = [long_runs(), whitespace(), controls(), blocks()]
    return list(dict.fromkeys(text for group in [*written, *ruled] for text in group))


if __name__ == "__main__":
    print(len(strings()))
