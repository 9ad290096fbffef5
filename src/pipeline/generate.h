// SPDX-License-Identifier: Apache-2.0
// The generate and score steps: rows to requests, and completions to columns. The one place where
// record batches and tokens meet.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arrow/type.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/dialect.h"
#include "engine/engine.h"
#include "engine/language_model.h"
#include "engine/token_count.h"
#include "pipeline/reasoning.h"
#include "pipeline/request_body.h"
#include "pipeline/row_batch.h"
#include "pipeline/sampling_settings.h"
#include "pipeline/spec.h"
#include "text/answer_check.h"

namespace millstream {

/// A model that servers run.
struct ServedModel {
  std::string name;  // as they know it
  Dialect dialect = Dialect::kOpenAi;
  nlohmann::ordered_json extra_body = nlohmann::ordered_json::object();
  TokenCounter count_tokens;      // null, or of no use with a dialect that does not count
  bool counts_every_row = false;  // with a tokenizer of this machine, which takes no server's time
};

/// A model as bound for a job: what steps share that use it.
struct BoundModel {
  std::shared_ptr<const LanguageModel> model;  // of a served one nothing is known: all is empty
  std::optional<ServedModel> served;
  std::shared_ptr<const GrammarCompiler> grammars;
  std::int64_t context = 0;  // tokens: the spec's or the model's; 0: a server's that is not known
  /// What request bodies may call it; the first is what answers call it.
  std::vector<std::string> names;
  /// The weights and how they are computed: what an answer depends on beside its request.
  std::string identity;
};

/// A row ready for the engine, or what kept it from it.
struct PreparedRow {
  std::int64_t row = 0;  // in its batch
  std::optional<RowError> error;
  std::vector<Request> requests;   // n of them; ids not yet given
  std::int64_t prompt_tokens = 0;  // before any cut; 0 if they were not counted
  bool truncated = false;
  std::string prompt;                        // as a person reads it, after the chat template
  std::shared_ptr<const AnswerCheck> check;  // of this row's answers alone
};

/// A row's completions, in order of samples.
struct AnsweredRow {
  std::int64_t row = 0;
  bool truncated = false;
  std::string prompt;
  std::vector<Completion> samples;
  std::shared_ptr<const AnswerCheck> check;
};

/// Counts keys of request bodies that were ignored, some names at most. Thread-safe.
class IgnoredKeys {
 public:
  void Add(const std::vector<std::string>& keys);
  std::string InWords() const;

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::int64_t> counts_ MS_GUARDED_BY(mutex_);
  bool has_more_ MS_GUARDED_BY(mutex_) = false;
};

/// Immutable once bound, but for what it counts; thread-safe.
class GenerateStep {
 public:
  /// Compiles and checks the spec. `now_unix_seconds` is the plan's.
  static Result<std::unique_ptr<GenerateStep>> Bind(
      const std::string& id,
      const GenerateSpec& spec,
      const BoundModel& model,
      std::int64_t job_seed,
      std::int64_t now_unix_seconds
  );

  const std::string& id() const { return id_; }
  bool is_score() const { return spec_.is_score; }
  const std::string& model_key() const { return spec_.model; }
  /// What all rows' answers may have, if it is one number.
  std::optional<std::int64_t> max_tokens() const;
  const std::string& model_identity() const { return model_.identity; }
  /// The columns it adds.
  const arrow::FieldVector& fields() const { return fields_; }
  /// Compiled expressions, each with the key it came from, for the binder's checks of column names.
  const std::vector<std::pair<std::string, std::shared_ptr<const Expression>>>& expressions(
  ) const {
    return expressions_;
  }
  std::vector<ResolvedSetting> Describe() const;
  /// Which part of the answer's schema stays JSON text, and why; or empty.
  const std::string& note() const { return note_; }

  /// Which keys of request bodies were ignored so far, in words; or empty.
  std::string IgnoredInWords() const;

  /// Renders, tokenizes and checks rows [begin, end) of a batch.
  Result<std::vector<PreparedRow>> Prepare(
      const RowBatch& batch, std::int64_t begin, std::int64_t end
  ) const;
  /// The prompt's tokens of a row whose model servers run and whose tokens Prepare() did not count;
  /// nothing if nobody counts them.
  Result<std::optional<std::int64_t>> CountPrompt(const PreparedRow& row) const;
  /// Adds the answers' columns to `batch`, whose row i is answered by answers[i], and emits what
  /// did not fail.
  Status Collect(RowBatch batch, const std::vector<AnsweredRow>& answers, Emitter& out) const;

 private:
  GenerateStep() = default;
  Status CompilePrompt();
  Status CompileConstraint();
  Result<std::shared_ptr<const Expression>> Compile(
      const std::string& key, const std::string& source, Expression::Mode mode
  );
  // The messages of each row, as JSON.
  Result<std::vector<nlohmann::ordered_json>> Conversations(
      const RowBatch& slice, std::vector<std::optional<RowError>>* errors
  ) const;
  Result<std::vector<std::string>> RenderChat(
      const RowBatch& slice, std::vector<std::optional<RowError>>* errors
  ) const;
  Result<std::vector<std::string>> RenderRaw(
      const RowBatch& slice, std::vector<std::optional<RowError>>* errors
  ) const;
  Result<std::vector<std::string>> Render(
      const RowBatch& slice, std::vector<std::optional<RowError>>* errors
  ) const;
  // Whether a row that was cut has a prompt that fits, and what it is.
  using FitsShorter = std::function<Result<bool>(const RowBatch& shorter)>;
  Status Shorten(
      const RowBatch& batch,
      std::int64_t row,
      PreparedRow* prepared,
      const FitsShorter& fits_shorter
  ) const;
  Status Truncate(
      const RowBatch& batch,
      std::int64_t row,
      std::int64_t room,
      PreparedRow* prepared,
      std::vector<std::int32_t>* tokens
  ) const;
  Result<std::vector<std::int32_t>> Encode(const std::string& marked) const;
  // A row's own choices, a JSON list of texts.
  nlohmann::ordered_json RowChoices(const Values& choices, std::size_t row, RowError* error) const;
  Result<std::shared_ptr<const Grammar>> RowGrammar(
      const Values& choices, std::size_t row, RowError* error
  ) const;
  // Adds the n requests of a row, each with its own stream of draws.
  void AddSamples(Request request, std::int64_t seed, const RowId& row, PreparedRow* out) const;
  // For `request`: what a step has then, and rows to requests and back.
  Status BindRequest();
  Result<std::vector<PreparedRow>> PrepareRequests(
      const RowBatch& slice,
      std::int64_t begin,
      const std::vector<RowSettings>& settings,
      std::vector<std::optional<RowError>> errors
  ) const;
  std::optional<RequestProblem> PrepareNative(
      const RowRequest& line, const RowSettings& settings, const RowId& row, PreparedRow* out
  ) const;
  Result<std::string> RenderRequest(const RequestBody& body) const;
  std::optional<RequestProblem> PrepareHttp(
      const RowRequest& line, std::string_view text, const RowId& row, PreparedRow* out
  ) const;
  Status CollectRequests(RowBatch batch, const std::vector<AnsweredRow>& answers, Emitter& out)
      const;
  // For `score`: the same.
  Status BindScore();
  Result<std::vector<PreparedRow>> PrepareScores(
      const RowBatch& slice,
      std::int64_t begin,
      const std::vector<RowSettings>& settings,
      std::vector<std::optional<RowError>> errors
  ) const;
  Status CollectScores(RowBatch batch, const std::vector<AnsweredRow>& answers, Emitter& out) const;
  // For a served model: what it cannot be asked; and rows to requests.
  Status CheckServed() const;
  Status CheckOverflowServed() const;
  Result<std::vector<nlohmann::ordered_json>> ServedPrompts(
      const RowBatch& slice, std::vector<std::optional<RowError>>* errors
  ) const;
  // Where its own prompts go; a row's `request` says so itself.
  Endpoint endpoint() const { return spec_.raw_prompt ? Endpoint::kCompletions : Endpoint::kChat; }
  bool CanCount(Endpoint endpoint) const;
  Result<std::optional<std::int64_t>> CountServed(const nlohmann::ordered_json& prompt) const;
  Status FitServed(
      const RowBatch& slice,
      std::size_t row,
      const SamplingParams& sampling,
      nlohmann::ordered_json& prompt,
      PreparedRow& out
  ) const;
  Result<std::vector<PreparedRow>> PrepareServed(
      const RowBatch& slice,
      std::int64_t begin,
      const std::vector<RowSettings>& settings,
      std::vector<std::optional<RowError>> errors
  ) const;
  // What of a body says how messages become a prompt.
  void AddPromptSettings(nlohmann::ordered_json& body) const;
  nlohmann::ordered_json ServedBody(const RowSettings& settings) const;
  // Adds a row's own choices to its body, and their check.
  std::optional<RowError> AddRowChoices(
      const Values& choices, std::size_t row, nlohmann::ordered_json& body, PreparedRow& out
  ) const;
  // A body in the server's words.
  Status ToServer(nlohmann::ordered_json& body) const;
  // An answer and, apart from it, its reasoning.
  SplitText Parts(const AnsweredRow& answer, const Completion& sample) const;
  std::optional<RowError> Judge(const AnsweredRow& answer) const;
  std::optional<RowError> JudgeConstrained(const AnsweredRow& answer, const Completion& sample)
      const;

  std::string id_;
  GenerateSpec spec_;
  BoundModel model_;
  std::int64_t now_ = 0;
  SamplingSettings sampling_;
  std::vector<std::int32_t> stop_tokens_;
  std::shared_ptr<const ChatTemplate> template_;
  std::vector<
      std::pair<std::shared_ptr<const Expression>, std::vector<std::shared_ptr<const Expression>>>>
      messages_;                                  // role, contents
  std::shared_ptr<const Expression> raw_prompt_;  // or the text of `score`
  std::shared_ptr<const Expression> choices_;     // structured_outputs.choice of an expression
  std::shared_ptr<const Grammar> grammar_;
  nlohmann::ordered_json constraint_;         // for a served model; null: none that all rows share
  std::shared_ptr<const AnswerCheck> check_;  // of its answers
  arrow::FieldVector fields_;
  std::shared_ptr<arrow::DataType> answer_type_;
  bool answer_is_json_ = false;
  std::string note_;
  std::vector<std::pair<std::string, std::shared_ptr<const Expression>>> expressions_;
  std::unique_ptr<IgnoredKeys> ignored_;
};

}  // namespace millstream
