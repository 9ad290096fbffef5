// SPDX-License-Identifier: Apache-2.0
//! A vocabulary as GGUF metadata has it, built into the pipeline that Hugging Face runs for it.

use std::collections::HashSet;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{Vocab, BPE};
use tokenizers::normalizers::{unicode::NFC, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Encoder};

use crate::tokenizer::Tokenizer;

pub struct Gguf<'a> {
    pub model: &'a str,
    pub pre: &'a str,
    pub tokens: Vec<&'a str>,
    pub token_types: &'a [i32],
    pub scores: &'a [f32],
    pub merges: Vec<&'a str>,
    pub bos_token: i32,
    pub eos_token: i32,
    pub unknown_token: i32,
    pub add_bos: bool,
    pub add_eos: bool,
    pub add_space_prefix: bool,
}

const TYPE_UNKNOWN: i32 = 2;
const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Gguf<'_> {
    pub fn build(&self) -> Result<Tokenizer, String> {
        self.check()?;
        let mut encoder = match self.model {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentence()?,
            other => {
                return Err(format!(
                    "tokenizer model is not supported: {other:?}; supported are \"gpt2\" and \"llama\""
                ))
            }
        };
        encoder.add_tokens(self.added_tokens()).map_err(|e| e.to_string())?;
        let around = |wanted: bool, id: i32| if wanted { u32::try_from(id).ok() } else { None };
        let prefix = around(self.add_bos, self.bos_token).into_iter().collect();
        let suffix = around(self.add_eos, self.eos_token).into_iter().collect();
        Tokenizer::new(encoder, prefix, suffix)
    }

    fn check(&self) -> Result<(), String> {
        let size = self.tokens.len();
        if size == 0 || size > 1 << 22 {
            return Err("the vocabulary has no tokens, or too many".into());
        }
        if !self.token_types.is_empty() && self.token_types.len() != size {
            return Err("the vocabulary's token types are not as many as its tokens".into());
        }
        if !self.scores.is_empty() && self.scores.len() != size {
            return Err("the vocabulary's scores are not as many as its tokens".into());
        }
        for id in [self.bos_token, self.eos_token, self.unknown_token] {
            if id < -1 || (id >= 0 && id as usize >= size) {
                return Err(format!("a special token's id is out of the vocabulary's range: {id}"));
            }
        }
        let mut seen = HashSet::with_capacity(size);
        match self.tokens.iter().find(|&&token| token.is_empty() || !seen.insert(token)) {
            Some(token) => Err(format!("the vocabulary has an empty token, or one twice: {token:?}")),
            None => Ok(()),
        }
    }

    fn vocabulary(&self) -> Vocab {
        self.tokens.iter().zip(0u32..).map(|(&token, id)| (token.to_string(), id)).collect()
    }

    fn added_tokens(&self) -> Vec<AddedToken> {
        let of = |(&text, &kind): (&&str, &i32)| match kind {
            TYPE_UNKNOWN if self.model == "llama" => Some(AddedToken::from(text, true)),
            TYPE_CONTROL => Some(AddedToken::from(text, true)),
            TYPE_USER_DEFINED => Some(AddedToken::from(text, false)),
            _ => None,
        };
        self.tokens.iter().zip(self.token_types).filter_map(of).map(|t| t.normalized(false)).collect()
    }

    fn byte_level(&self) -> Result<Encoder, String> {
        let bytes = |use_regex| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, use_regex));
        let split = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.into());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map(PreTokenizerWrapper::Split)
                .map_err(|e| e.to_string())
        };
        let steps = match self.pre {
            "smollm" => vec![PreTokenizerWrapper::Digits(Digits::new(true)), bytes(true)],
            "gpt-2" | "default" | "" => vec![bytes(true)],
            "llama-bpe" | "llama3" | "llama-v3" => vec![split(LLAMA3)?, bytes(false)],
            "qwen2" => vec![split(QWEN2)?, bytes(false)],
            other => {
                return Err(format!(
                "pre-tokenizer is not supported: {other:?}; supported are smollm, gpt-2, default, llama-bpe, qwen2"
            ))
            }
        };
        let merges = self.merges.iter().map(|merge| pair(merge)).collect::<Result<Vec<_>, _>>()?;
        let bpe = BPE::builder()
            .vocab_and_merges(self.vocabulary(), merges)
            .ignore_merges(self.pre.starts_with("llama"))
            .build()
            .map_err(|e| format!("the vocabulary's merges are not usable: {e}"))?;
        let mut encoder = Encoder::new(bpe);
        if self.pre == "qwen2" {
            encoder.with_normalizer(Some(NFC)).map_err(|e| e.to_string())?;
        }
        encoder.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
        encoder.with_decoder(Some(ByteLevel::default()));
        Ok(encoder)
    }

    /// SentencePiece's BPE has scores where ours has merges: every pair of tokens that makes a token is one,
    /// in the order of that token's score.
    fn sentence(&self) -> Result<Encoder, String> {
        if self.scores.is_empty() {
            return Err("the vocabulary has no scores".into());
        }
        let vocabulary = self.vocabulary();
        let mut merges = Vec::new();
        for (id, &token) in self.tokens.iter().enumerate() {
            let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let ids = splits.filter_map(|(l, r)| Some((*vocabulary.get(l)?, *vocabulary.get(r)?, l, r)));
            let mut pairs: Vec<_> = ids.collect();
            pairs.sort_by_key(|&(l, r, ..)| (l, r));
            merges.extend(pairs.into_iter().map(|(_, _, l, r)| (self.scores[id], (l.to_string(), r.to_string()))));
        }
        merges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let unknown = usize::try_from(self.unknown_token).map_or("<unk>", |id| self.tokens[id]);
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary, merges.into_iter().map(|(_, pair)| pair).collect())
            .unk_token(unknown.to_string())
            .fuse_unk(true)
            .byte_fallback(true)
            .build()
            .map_err(|e| format!("the vocabulary's merges are not usable: {e}"))?;
        let mut encoder = Encoder::new(bpe);
        let replace = |from: &str, to: &str| Replace::new(from, to).map_err(|e| e.to_string());
        let mut steps = Vec::new();
        let mut decoders = vec![replace("\u{2581}", " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.add_space_prefix {
            steps.push(Prepend::new("\u{2581}".into()).into());
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        steps.push(replace(" ", "\u{2581}")?.into());
        encoder.with_normalizer(Some(Normalizers::new(steps))).map_err(|e| e.to_string())?;
        encoder.with_decoder(Some(Decoders::new(decoders)));
        Ok(encoder)
    }
}

fn pair(merge: &str) -> Result<(String, String), String> {
    let mut parts = merge.splitn(2, ' ');
    match (parts.next(), parts.next()) {
        (Some(left), Some(right)) if !left.is_empty() && !right.is_empty() => Ok((left.into(), right.into())),
        _ => Err(format!("the vocabulary has a malformed merge: {merge:?}")),
    }
}
