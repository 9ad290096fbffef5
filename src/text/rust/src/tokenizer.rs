// SPDX-License-Identifier: Apache-2.0
//! One vocabulary: text with marks to ids, ids to text.

use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{PreTokenizerWrapper, Tokenizer as Encoder};

use crate::marks::{unmark, SpecialTexts, MARK};

const MAX_VOCABULARY: usize = 1 << 22;

pub struct Special {
    pub lstrip: bool,
    pub rstrip: bool,
    pub single_word: bool,
}

pub struct Tokenizer {
    encoder: Encoder,
    /// The encoder for text that does not stand at the start, where it differs.
    later: Option<Encoder>,
    specials: SpecialTexts,
    special_tokens: String,
    special_of: Vec<Option<Special>>, // by id
    texts: Vec<String>,               // by id; empty where there is no token
    bytes: Vec<Vec<u8>>,              // by id; empty for special tokens
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

impl Tokenizer {
    pub fn from_json(json: &str) -> Result<Tokenizer, String> {
        let mut encoder: Encoder = json.parse().map_err(|e| format!("tokenizer.json is not usable: {e}"))?;
        encoder.with_truncation(None).map_err(|e| e.to_string())?;
        encoder.with_padding(None);
        let (prefix, suffix) = surroundings(&encoder)?;
        Tokenizer::new(encoder, prefix, suffix)
    }

    pub fn new(mut encoder: Encoder, prefix: Vec<u32>, suffix: Vec<u32>) -> Result<Tokenizer, String> {
        encoder.set_encode_special_tokens(true);
        let vocabulary = encoder.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        if size == 0 || size > MAX_VOCABULARY {
            return Err(format!("vocabulary size is out of range: limit {MAX_VOCABULARY}"));
        }
        let mut texts = vec![String::new(); size];
        for (text, id) in vocabulary {
            texts[id as usize] = text;
        }
        let token_bytes = TokenBytes::new(&encoder);
        let mut bytes: Vec<Vec<u8>> = texts.iter().map(|text| token_bytes.of(text)).collect();
        let mut special_of: Vec<Option<Special>> = std::iter::repeat_with(|| None).take(size).collect();
        let mut specials = Vec::new();
        for (id, token) in encoder.get_added_tokens_decoder() {
            bytes[id as usize] = if token.special { Vec::new() } else { token.content.clone().into_bytes() };
            if token.special {
                specials.push((token.content, id));
                let (lstrip, rstrip, single_word) = (token.lstrip, token.rstrip, token.single_word);
                special_of[id as usize] = Some(Special { lstrip, rstrip, single_word });
            }
        }
        specials.sort_by_key(|&(_, id)| id);
        let special_tokens = specials.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("\n");
        let specials = SpecialTexts::new(specials);
        let later = without_first_space(&encoder);
        Ok(Tokenizer { encoder, later, specials, special_tokens, special_of, texts, bytes, prefix, suffix })
    }

    /// Special tokens are found in the marked text, as Hugging Face finds them; what lies between is encoded
    /// without them, its marks taken out.
    pub fn encode(&self, marked: &str, add_special_tokens: bool) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        if add_special_tokens {
            ids.extend(&self.prefix);
        }
        let text = marked.as_bytes();
        let mut done = 0; // everything before is encoded
        let mut at = 0;
        while let Some(found) = text[at..].iter().position(|&b| self.specials.may_begin(b)) {
            at += found;
            let Some((id, length)) = self.special_at(marked, at) else {
                at += 1;
                continue;
            };
            let special = self.special_of[id as usize].as_ref();
            let before = &marked[done..at];
            self.encode_plain(before, done == 0, special.is_some_and(|s| s.lstrip), &mut ids)?;
            ids.push(id);
            at += length;
            if special.is_some_and(|s| s.rstrip) {
                let rest = &marked[at..];
                at += rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == MARK).len();
            }
            done = at;
        }
        self.encode_plain(&marked[done..], done == 0, false, &mut ids)?;
        if add_special_tokens {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    fn special_at(&self, marked: &str, at: usize) -> Option<(u32, usize)> {
        if marked[..at].ends_with(MARK) {
            return None;
        }
        let (id, length) = self.specials.longest_at(&marked.as_bytes()[at..])?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if self.special_of[id as usize].as_ref().is_some_and(|s| s.single_word)
            && (marked[..at].ends_with(is_word) || unmark(&marked[at + length..]).starts_with(is_word))
        {
            return None;
        }
        Some((id, length))
    }

    fn encode_plain(&self, marked: &str, is_first: bool, trim_end: bool, ids: &mut Vec<u32>) -> Result<(), String> {
        let text = unmark(marked);
        let text = if trim_end { text.trim_end() } else { &text };
        if text.is_empty() {
            return Ok(());
        }
        let encoder = if is_first { &self.encoder } else { self.later.as_ref().unwrap_or(&self.encoder) };
        let encoding = encoder.encode_fast(text, false).map_err(|e| format!("text cannot be tokenized: {e}"))?;
        ids.extend(encoding.get_ids());
        Ok(())
    }

    pub fn decode(&self, tokens: &[i32], skip_special_tokens: bool) -> Result<String, String> {
        let mut ids = Vec::with_capacity(tokens.len());
        for &token in tokens {
            let text = usize::try_from(token).ok().and_then(|id| self.texts.get(id));
            if text.is_none_or(String::is_empty) {
                return Err(format!("not a token of this vocabulary: {token}"));
            }
            ids.push(token as u32);
        }
        self.encoder.decode(&ids, skip_special_tokens).map_err(|e| format!("tokens cannot be decoded: {e}"))
    }

    pub fn vocabulary_size(&self) -> usize {
        self.texts.len()
    }

    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.encoder.token_to_id(text)
    }

    pub fn is_special(&self, token: i32) -> bool {
        self.by_id(&self.special_of, token).is_some_and(Option::is_some)
    }

    pub fn token_text(&self, token: i32) -> &str {
        self.by_id(&self.texts, token).map_or("", String::as_str)
    }

    pub fn token_bytes(&self, token: i32) -> &[u8] {
        self.by_id(&self.bytes, token).map_or(&[], Vec::as_slice)
    }

    pub fn special_tokens(&self) -> &str {
        &self.special_tokens
    }

    fn by_id<'a, T>(&self, items: &'a [T], token: i32) -> Option<&'a T> {
        items.get(usize::try_from(token).ok()?)
    }
}

/// What the post-processor puts before and after a text.
fn surroundings(encoder: &Encoder) -> Result<(Vec<u32>, Vec<u32>), String> {
    let encoding = encoder.encode("a", true).map_err(|e| format!("tokenizer.json is not usable: {e}"))?;
    let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let before = mask.iter().take_while(|&&m| m == 1).count();
    let after = mask[before..].iter().rev().take_while(|&&m| m == 1).count();
    Ok((ids[..before].to_vec(), ids[ids.len() - after..].to_vec()))
}

/// Metaspace with `first` puts a space before the text's start only.
fn without_first_space(encoder: &Encoder) -> Option<Encoder> {
    fn change(pre_tokenizer: &mut PreTokenizerWrapper) -> bool {
        match pre_tokenizer {
            PreTokenizerWrapper::Metaspace(m) if m.get_prepend_scheme() == PrependScheme::First => {
                m.set_prepend_scheme(PrependScheme::Never);
                true
            }
            PreTokenizerWrapper::Sequence(s) => s.as_mut().iter_mut().fold(false, |any, p| change(p) | any),
            _ => false,
        }
    }
    let mut pre_tokenizer = encoder.get_pre_tokenizer()?.clone();
    if !change(&mut pre_tokenizer) {
        return None;
    }
    let mut later = encoder.clone();
    later.with_pre_tokenizer(Some(pre_tokenizer));
    Some(later)
}

/// The bytes that a token stands for, by the kind of vocabulary.
enum TokenBytes {
    ByteLevel,
    Sentence, // SentencePiece's: a lower block for a space, <0xNN> for a byte
    Word,     // WordPiece's: ## for "goes on"
    Plain,
}

impl TokenBytes {
    fn new(encoder: &Encoder) -> TokenBytes {
        let decoder = encoder.get_decoder().and_then(|d| serde_json::to_string(d).ok()).unwrap_or_default();
        let has = |name: &str| decoder.contains(&format!("\"type\":\"{name}\""));
        if has("ByteLevel") {
            TokenBytes::ByteLevel
        } else if has("Metaspace") || has("ByteFallback") || decoder.contains('\u{2581}') {
            TokenBytes::Sentence
        } else if has("WordPiece") {
            TokenBytes::Word
        } else {
            TokenBytes::Plain
        }
    }

    fn of(&self, text: &str) -> Vec<u8> {
        match self {
            TokenBytes::ByteLevel => {
                text.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| text.into())
            }
            TokenBytes::Sentence => match text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')) {
                Some(hex) if hex.len() == 2 => {
                    u8::from_str_radix(hex, 16).map_or_else(|_| text.into(), |b| vec![b])
                }
                _ => text.replace('\u{2581}', " ").into_bytes(),
            },
            TokenBytes::Word => match text.strip_prefix("##") {
                Some(rest) => rest.into(),
                None => format!(" {text}").into_bytes(),
            },
            TokenBytes::Plain => text.into(),
        }
    }
}

/// GPT-2's alphabet: visible Latin-1 characters stand for themselves, the other bytes, in order, for U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let is_visible = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|&b| is_visible(b)),
        code => (0..=255u8).filter(|&b| !is_visible(b)).nth((code - 0x100) as usize),
    }
}
