// SPDX-License-Identifier: Apache-2.0
// The table's half about `generate` and `score`.
#include <array>

#include "pipeline/spec.h"
#include "pipeline/spec_foreign.h"
#include "pipeline/spec_shapes.h"

namespace millstream {
namespace {

constexpr std::array<std::string_view, 2> kSides{"right", "left"};
constexpr std::array<std::string_view, 1> kOverflows{"error"};
constexpr std::array<std::string_view, 2> kLengths{"keep", "error"};
constexpr std::array<std::string_view, 2> kRunaways{"end", "ignore"};
constexpr std::array<std::string_view, 2> kReasonings{"keep", "split"};
constexpr std::array<std::string_view, 1> kParts{"text"};
constexpr std::array<std::string_view, 3> kResponseFormats{"json_schema", "json_object", "text"};
constexpr std::array<std::string_view, 4> kPrompts{"prompt", "messages", "raw_prompt", "request"};
constexpr std::array<std::string_view, 4> kConstraints{"json", "choice", "regex", "grammar"};

constexpr SpecKey kPartKeys[] = {
    {.name = "type",
     .shape =
         {.scalar = kWord,
          .words = kParts,
          .words_note = "other parts are not served in this version"},
     .doc = "What the part is. This version serves text only.",
     .example = "text",
     .required = true},
    {.name = "text",
     .shape = kTemplateValue,
     .doc = "The part's text, a template over the row.",
     .example = "\"{{ text }}\""},
};
}  // namespace

constexpr SpecSection kPart{
    .name = "messages[].content[]",
    .doc = "One part of a message.",
    .keys = kPartKeys,
    .foreign = kPartForeign
};

namespace {
constexpr ValueShape kPartValue{.section = &kPart};

constexpr SpecKey kMessageKeys[] = {
    {.name = "role",
     .shape = kTemplateValue,
     .doc = "Who says it: what the model's chat template knows, a template over the row.",
     .example = "user",
     .required = true},
    {.name = "content",
     .shape = {.scalar = kTemplate, .items = &kPartValue},
     .doc = "What is said: a template over the row, or a list of parts.",
     .example = "\"{{ text }}\"",
     .required = true},
};
}  // namespace

constexpr SpecSection kMessage{
    .name = "messages[]",
    .doc = "One message of the conversation.",
    .keys = kMessageKeys,
    .foreign = kMessageForeign
};

namespace {
constexpr ValueShape kMessageValue{.section = &kMessage};

constexpr SpecKey kOverflowKeys[] = {
    {.name = "truncate",
     .shape = kTextOrList,
     .doc = "Columns whose text may be cut, the first one first. The template is never cut.",
     .example = "[text]",
     .required = true},
    {.name = "side",
     .shape = {.scalar = kWord, .words = kSides},
     .default_value = "right",
     .doc = "The side that is cut away.",
     .example = "left"},
};
}  // namespace

constexpr SpecSection kOverflow{
    .name = "on_overflow",
    .doc = "What is cut when prompt and `max_tokens`, or a text to score, exceed the context.",
    .keys = kOverflowKeys,
    .foreign = kOverflowForeign
};

namespace {
constexpr SpecKey kStructuredKeys[] = {
    {.name = "json",
     .shape = {.scalar = kText, .any_mapping = true},
     .doc = "A JSON Schema, or a file with one, relative to the job file.",
     .example = "{type: object, properties: {name: {type: string}}, required: [name]}"},
    {.name = "choice",
     .shape = {.scalar = kExpression, .items = &kScalarValue},
     .doc =
         "The answers to choose from, taken as written, or one expression that gives them per row.",
     .example = "[positive, negative]"},
    {.name = "regex",
     .shape = kTextValue,
     .doc = "A regular expression that the whole answer matches.",
     .example = "'[0-9]{4}'"},
    {.name = "grammar",
     .shape = kTextValue,
     .doc = "A context-free grammar in llguidance's Lark notation.",
     .example = "'start: \"yes\" | \"no\"'"},
};
}  // namespace

constexpr SpecSection kStructured{
    .name = "structured_outputs",
    .doc = "What the answer must look like.",
    .keys = kStructuredKeys,
    .foreign = kStructuredForeign,
    .one_of = kConstraints
};

namespace {
constexpr SpecKey kJsonSchemaKeys[] = {
    {.name = "name", .shape = kTextValue, .doc = "Taken and not used.", .example = "person"},
    {.name = "description", .shape = kTextValue, .doc = "Taken and not used.", .example = "A person"
    },
    {.name = "schema",
     .shape = kAnyMapping,
     .doc = "The JSON Schema.",
     .example = "{type: object, properties: {name: {type: string}}}",
     .required = true},
    {.name = "strict",
     .shape = kBoolValue,
     .doc = "Taken and not used: answers always follow the schema.",
     .example = "true"},
};
}  // namespace

constexpr SpecSection kJsonSchema{
    .name = "response_format.json_schema",
    .doc = "OpenAI's wrapper of a schema.",
    .keys = kJsonSchemaKeys
};

namespace {
constexpr SpecKey kResponseFormatKeys[] = {
    {.name = "type",
     .shape = {.scalar = kWord, .words = kResponseFormats},
     .doc = "`json_object` is any JSON object, `text` no constraint.",
     .example = "json_object",
     .required = true},
    {.name = "json_schema",
     .shape = {.section = &kJsonSchema},
     .doc = "With `type: json_schema`, the schema.",
     .example = "{name: person, schema: {type: object}}"},
};
}  // namespace

constexpr SpecSection kResponseFormat{
    .name = "response_format",
    .doc = "OpenAI's `response_format`, as pasted.",
    .keys = kResponseFormatKeys,
    .foreign = kResponseFormatForeign
};

namespace {
constexpr SpecKey kGenerateKeys[] = {
    {.name = "model",
     .shape = kTextValue,
     .doc = "A name from `models`, or a path, package or Hugging Face id directly.",
     .example = "writer",
     .required = true},
    {.name = "prompt",
     .shape = kTemplateValue,
     .doc = "The user's message.",
     .example = "\"Explain in one sentence: {{ text }}\""},
    {.name = "system",
     .shape = kTemplateValue,
     .default_note = "none",
     .doc = "The system message that goes with `prompt`.",
     .example = "\"You are a lexicographer.\""},
    {.name = "messages",
     .shape = {.scalar = kText, .items = &kMessageValue},
     .doc = "The whole conversation, or the name of a column that holds one.",
     .example = "[{role: user, content: \"{{ text }}\"}]"},
    {.name = "raw_prompt",
     .shape = kTemplateValue,
     .doc = "The text that the model continues, without a chat template.",
     .example = "\"Q: {{ question }}\\nA:\""},
    {.name = "request",
     .shape = kTextValue,
     .doc = "The column that holds a request body of OpenAI's API, which says all that the other "
            "keys say; the columns `url` and `method`, where there are any, say of which kind. The "
            "output column holds the whole completion object, as JSON.",
     .example = "body"},
    {.name = "as",
     .shape = kTextValue,
     .doc = "The output column, and the step's id unless `id` is given.",
     .example = "answer",
     .required = true},
    {.name = "max_tokens",
     .shape = {.scalar = kRowInteger, .range = Between(1, kMostTokens)},
     .default_note = "the model's, else 512",
     .doc = "Tokens that an answer may have.",
     .example = "64"},
    {.name = "min_tokens",
     .shape = {.scalar = kRowInteger, .range = Between(0, kMostTokens)},
     .default_note = "0",
     .doc = "Tokens before an answer may end.",
     .example = "1"},
    {.name = "temperature",
     .shape = {.scalar = kRowNumber, .range = Between(0, 100)},
     .default_note = "the model's, else 1",
     .doc = "Randomness; 0 always takes the likeliest token.",
     .example = "0.7"},
    {.name = "top_k",
     .shape = {.scalar = kRowInteger, .range = Between(-1, kMostTokens)},
     .default_note = "the model's, else 0",
     .doc = "Draws from the k likeliest tokens; 0 or -1 from all.",
     .example = "40"},
    {.name = "top_p",
     .shape = {.scalar = kRowNumber, .range = AboveUpTo(0, 1)},
     .default_note = "the model's, else 1",
     .doc = "Draws from the likeliest tokens that together have this probability.",
     .example = "0.95"},
    {.name = "min_p",
     .shape = {.scalar = kRowNumber, .range = Between(0, 1)},
     .default_note = "the model's, else 0",
     .doc = "Draws from tokens with at least this share of the likeliest one's probability.",
     .example = "0.05"},
    {.name = "repetition_penalty",
     .shape = {.scalar = kRowNumber, .range = AboveUpTo(0, 100)},
     .default_note = "the model's, else 1",
     .doc = "Above 1 makes tokens of the prompt and the answer less likely.",
     .example = "1.1"},
    {.name = "presence_penalty",
     .shape = {.scalar = kRowNumber, .range = Between(-2, 2)},
     .default_note = "0",
     .doc = "Above 0 makes tokens that the answer has less likely.",
     .example = "0.5"},
    {.name = "frequency_penalty",
     .shape = {.scalar = kRowNumber, .range = Between(-2, 2)},
     .default_note = "0",
     .doc = "The same, by how often the answer has them.",
     .example = "0.5"},
    {.name = "stop",
     .shape = kTextOrList,
     .default_note = "none",
     .doc = "Texts that end an answer.",
     .example = "[\"###\"]"},
    {.name = "stop_token_ids",
     .shape = {.items = &kTokenId},
     .default_note = "none",
     .doc = "Tokens that end an answer, beside the model's own.",
     .example = "[2]"},
    {.name = "include_stop_str_in_output",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Keeps the stop text at the answer's end.",
     .example = "true"},
    {.name = "ignore_eos",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Goes on after the model's end of text, up to `max_tokens`.",
     .example = "true"},
    {.name = "n",
     .shape = {.scalar = kInteger, .range = Between(1, 64)},
     .default_value = "1",
     .doc = "Answers per row; above 1 the output column is a list.",
     .example = "3"},
    {.name = "seed",
     .shape = {.scalar = kRowInteger, .range = Between(-kLargestSeed, kLargestSeed)},
     .default_note = "the job's",
     .doc = "Seed of the random draws. Each row has a stream of its own all the same.",
     .example = "7"},
    {.name = "chat_template",
     .shape = kTextValue,
     .default_note = "the model's",
     .doc = "A file with a Jinja chat template, relative to the job file.",
     .example = "chatml.jinja"},
    {.name = "chat_template_kwargs",
     .shape = kAnyMapping,
     .default_value = "{}",
     .doc = "Further values for the chat template.",
     .example = "{enable_thinking: false}"},
    {.name = "continue_final_message",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "The last message is the beginning of the answer.",
     .example = "true"},
    {.name = "add_special_tokens",
     .shape = kBoolValue,
     .default_note = "`true` with `raw_prompt`, else `false`",
     .doc = "Lets the tokenizer add its own tokens, such as a beginning of text.",
     .example = "false"},
    {.name = "parse_special",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Lets text of rows become special tokens. Only for rows that you trust.",
     .example = "true"},
    {.name = "structured_outputs",
     .shape = {.section = &kStructured},
     .default_note = "none",
     .doc = "What the answer must look like.",
     .example = "{choice: [positive, negative]}"},
    {.name = "response_format",
     .shape = {.section = &kResponseFormat},
     .default_note = "none",
     .doc = "The same in OpenAI's form.",
     .example = "{type: json_object}"},
    {.name = "on_overflow",
     .shape = {.scalar = kWord, .words = kOverflows, .section = &kOverflow},
     .default_value = "error",
     .doc = "What happens to a row whose prompt and `max_tokens` exceed the context.",
     .example = "{truncate: [text], side: right}"},
    {.name = "on_length",
     .shape = {.scalar = kWord, .words = kLengths},
     .default_value = "keep",
     .doc = "What happens to an answer that was cut at `max_tokens`, or as a runaway.",
     .example = "error"},
    {.name = "runaway",
     .shape = {.scalar = kWord, .words = kRunaways},
     .default_value = "end",
     .doc = "Whether the native engine ends an answer that goes on in white space, or repeats "
            "itself, and no more.",
     .example = "ignore"},
    {.name = "reasoning",
     .shape = {.scalar = kWord, .words = kReasonings},
     .default_value = "keep",
     .doc = "`split` moves `<think>` parts into the column `<as>_reasoning`.",
     .example = "split"},
    {.name = "keep_prompt",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Adds the column `<as>_prompt` with the prompt as the model got it.",
     .example = "true"},
};
}  // namespace

constexpr SpecSection kGenerate{
    .name = "generate",
    .doc = "Runs a model for each row and puts the answer into a new column.",
    .keys = kGenerateKeys,
    .foreign = kGenerateForeign,
    .one_of = kPrompts
};

namespace {
constexpr SpecKey kScoreKeys[] = {
    {.name = "model",
     .shape = kTextValue,
     .doc = "A name from `models`, or a path, package or Hugging Face id directly. Of the native "
            "engine: servers do not score texts.",
     .example = "judge",
     .required = true},
    {.name = "text",
     .shape = kTemplateValue,
     .doc = "The text, a template over the row. No chat template is put around it.",
     .example = "\"{{ text }}\"",
     .required = true},
    {.name = "as",
     .shape = kTextValue,
     .doc = "The output column, and the step's id unless `id` is given: the mean of the natural "
            "logarithms of the probabilities that the model gives each token after those before "
            "it. The first token has none. Perplexity is `exp` of its negative.",
     .example = "quality",
     .required = true},
    {.name = "per_token",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Adds the column `<as>_logprobs` with the logarithm of each token but the first.",
     .example = "true"},
    {.name = "add_special_tokens",
     .shape = kBoolValue,
     .default_value = "true",
     .doc = "Lets the tokenizer add its own tokens, such as a beginning of text, if it has any.",
     .example = "false"},
    {.name = "parse_special",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Lets text of rows become special tokens. Only for rows that you trust.",
     .example = "true"},
    {.name = "on_overflow",
     .shape = {.scalar = kWord, .words = kOverflows, .section = &kOverflow},
     .default_value = "error",
     .doc = "What happens to a row whose text exceeds the context.",
     .example = "{truncate: [text], side: right}"},
};
}  // namespace

constexpr SpecSection kScore{
    .name = "score",
    .doc = "Puts how likely a model finds a text into a new column.",
    .keys = kScoreKeys,
    .foreign = kScoreForeign
};

}  // namespace millstream
