// SPDX-License-Identifier: Apache-2.0
#include "job/inspect.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/nearest.h"
#include "data/json_value.h"
#include "data/reader.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace millstream {
namespace {

constexpr std::int64_t kSampleRows = 1000;
constexpr std::int64_t kShownPrompts = 3;

// Collects what passes the steps before the first generate step, and counts what does not.
class Collect final : public Emitter, public RowSink {
 public:
  Status Emit(RowBatch batch) override {
    batches.push_back(std::move(batch));
    return Status::OK();
  }
  Status Leave(FinishedRows rows) override { return Finish(std::move(rows)); }
  Status Finish(FinishedRows rows) override {
    if (rows.status == RowStatus::kSkipped) skipped += rows.batch.num_rows();
    for (const RowError& error : rows.errors) ++errors[error.code];
    return Status::OK();
  }

  std::vector<RowBatch> batches;
  std::map<std::string, std::int64_t> errors;
  std::int64_t skipped = 0;
};

// Reads the splits' rows and puts them through the steps before the first generate step.
Status RunFirstSegment(const PreparedJob& job, const std::vector<Split>& splits, Collect& collect) {
  SplitReader reader(job.plan.snapshot, job.input, job.bound.input_columns, kSampleRows);
  for (const Split& split : splits) {
    const Piece whole{split.number, split, 0, split.num_rows};
    MS_RETURN_NOT_OK(reader.Open(split));
    while (true) {
      MS_ASSIGN_OR_RETURN(std::optional<InputBatch> batch, reader.Next());
      if (!batch) break;
      MS_ASSIGN_OR_RETURN(
          RowBatch rows, StartRows(job.bound, *std::move(batch), whole, 0, collect)
      );
      MS_RETURN_NOT_OK(RunOperators(job.bound.segments.front().operators, std::move(rows), collect)
      );
    }
  }
  return Status::OK();
}

void DescribePlan(const PreparedJob& job, std::string& out) {
  out += fmt::format(
      "job {}: {} rows in {} files, {} splits\n",
      job.spec.name,
      job.plan.snapshot.num_rows,
      job.plan.snapshot.files.size(),
      job.plan.splits.size()
  );
  for (std::size_t i = 0; i < job.plan.snapshot.files.size() && i < 20; ++i) {
    const InputFile& file = job.plan.snapshot.files[i];
    out += fmt::format(
        "  {}  {} rows, {} bytes, {}\n",
        file.name,
        file.num_records,
        file.size_bytes,
        FormatName(file.format)
    );
    if (file.compression != Compression::kNone) {
      out += "    compressed text is read in sequence, from its start\n";
    }
  }
  for (const ColumnFit& fit : job.plan.snapshot.fits) {
    if (fit.num_misfits > 0) {
      out += fmt::format(
          "  column '{}': {} of {} values do not fit its type: error rows\n",
          fit.column,
          fit.num_misfits,
          fit.num_values
      );
    }
  }
  out += "output columns\n";
  for (const auto& field : job.bound.output->fields()) {
    out += fmt::format(
        "  {}: {}\n", field->name(), IsJsonText(*field) ? "json" : TypeName(*field->type())
    );
  }
  for (const std::string& note : job.bound.notes) out += "  note: " + note + "\n";
  for (const auto& [key, model] : job.plan.models) {
    const ModelSpec& spec = job.model_specs.at(key);
    out += spec.is_native
               ? fmt::format(
                     "model {}: {} ({}, {})\n",
                     key,
                     model.path,
                     model.compute,
                     job.plan.instruction_set
                 )
               : fmt::format(
                     "model {}: {}, dialect {}{}, at {}\n",
                     key,
                     model.path,
                     model.dialect,
                     model.context > 0 ? fmt::format(", context {}", model.context) : "",
                     spec.launch.empty()
                         ? fmt::format("{}", fmt::join(spec.base_urls, ", "))
                         : fmt::format("a server of its own: {}", fmt::join(spec.launch, " "))
                 );
  }
  if (!job.bound.settings.empty()) out += "settings\n";
  for (const ResolvedSetting& setting : job.bound.settings) {
    out += fmt::format(
        "  {}.{} = {}  ({})\n", setting.step, setting.name, setting.value, setting.source
    );
  }
}

// What is known of the prompts of a sample of rows.
struct PromptSample {
  std::vector<std::int64_t> lengths;  // tokens
  bool is_guess = false;              // of bytes
  std::int64_t over = 0, truncated = 0;
};

// A server that must be asked for the number is asked for some rows alone.
Status AddLength(const GenerateStep& step, const PreparedRow& row, PromptSample& sample) {
  constexpr std::size_t kAsked = 100;
  constexpr std::size_t kBytesPerToken = 4;
  if (row.prompt_tokens > 0 || (step.is_score() && !row.error)) {
    sample.lengths.push_back(row.prompt_tokens);
  } else if (!row.error && !row.requests.empty() && sample.lengths.size() < kAsked) {
    MS_ASSIGN_OR_RETURN(std::optional<std::int64_t> tokens, step.CountPrompt(row));
    sample.is_guess = sample.is_guess || !tokens;
    const std::size_t guess = (row.prompt.size() + kBytesPerToken - 1) / kBytesPerToken;
    sample.lengths.push_back(tokens.value_or(static_cast<std::int64_t>(guess)));
  }
  return Status::OK();
}

void DescribeLengths(PromptSample& sample, bool has_context, bool is_score, std::string& out) {
  std::vector<std::int64_t>& lengths = sample.lengths;
  if (lengths.empty()) return;
  std::sort(lengths.begin(), lengths.end());
  const auto at = [&](double share) {
    return lengths[static_cast<std::size_t>(share * static_cast<double>(lengths.size() - 1))];
  };
  out += fmt::format(
      "{} tokens over {} sampled rows: p50 {}, p95 {}, max {}{}\n",
      is_score ? "text" : "prompt",
      lengths.size(),
      at(0.5),
      at(0.95),
      lengths.back(),
      sample.is_guess ? " (a guess: 4 bytes a token, as no tokenizer is known)" : ""
  );
  if (!has_context) return;
  out += fmt::format(
      "over the context{}: {} of them ({:.1f} %)\n",
      is_score ? "" : " with max_tokens",
      sample.over,
      100.0 * static_cast<double>(sample.over) / static_cast<double>(lengths.size())
  );
}

// What all rows' tokens of the step cost, by those of the sample.
void DescribeCost(
    const PriceSpec& price,
    const GenerateStep& step,
    const PromptSample& sample,
    double requests,
    std::string& out
) {
  if (sample.lengths.empty()) return;
  double tokens = 0;
  for (const std::int64_t length : sample.lengths) tokens += static_cast<double>(length);
  const double mean = tokens / static_cast<double>(sample.lengths.size());
  const auto cost = [&](double per_request, double per_million) {
    const double total = requests * per_request * per_million / 1e6;
    return fmt::format("{:.{}f}", total, total < 1 ? 5 : 2);
  };
  out += fmt::format(
      "cost of step {}: about {} for the prompts ({:.0f} requests, {:.0f} tokens each)",
      step.id(),
      cost(mean, price.input),
      requests,
      mean
  );
  const auto most = step.max_tokens();
  out += most ? fmt::format(
                    ", at most {} for the answers (max_tokens {})\n",
                    cost(static_cast<double>(*most), price.output),
                    *most
                )
              : ", the answers not counted, as max_tokens is not one number\n";
}

Status DescribePrompts(
    const PreparedJob& job, const GenerateStep& step, const Collect& collect, std::string& out
) {
  PromptSample sample;
  std::map<std::string, std::int64_t> errors = collect.errors;
  std::int64_t shown = 0, asked = 0, sampled = collect.skipped;
  for (const auto& [code, count] : collect.errors) sampled += count;
  for (const RowBatch& batch : collect.batches) {
    MS_ASSIGN_OR_RETURN(const auto rows, step.Prepare(batch, 0, batch.num_rows()));
    for (const PreparedRow& row : rows) {
      ++sampled;
      asked += static_cast<std::int64_t>(row.requests.size());
      MS_RETURN_NOT_OK(AddLength(step, row, sample));
      const bool overflows = row.error && row.error->code == "context_overflow";
      sample.over += row.truncated || overflows ? 1 : 0;
      sample.truncated += row.truncated ? 1 : 0;
      if (row.error) {
        ++errors[row.error->code];
        continue;
      }
      if (shown++ < kShownPrompts) {
        out += fmt::format(
            "{} {} of step {}\n{}\n",
            step.is_score() ? "text" : "prompt",
            shown,
            step.id(),
            row.prompt
        );
      }
    }
  }
  const BoundModel& model = job.models.at(step.model_key());
  const bool counts_all = !model.served || model.served->counts_every_row;
  DescribeLengths(sample, counts_all && model.context > 0, step.is_score(), out);
  if (const auto& price = job.model_specs.at(step.model_key()).price; price && sampled > 0) {
    const double share = static_cast<double>(asked) / static_cast<double>(sampled);
    const auto rows = static_cast<double>(job.plan.snapshot.num_rows);
    DescribeCost(*price, step, sample, share * rows, out);
  }
  if (sample.truncated > 0) {
    out += fmt::format("truncated to fit the context: {} rows of the sample\n", sample.truncated);
  }
  for (const auto& [code, count] : errors) {
    out += fmt::format("errors to expect: {} x {} in the sample\n", count, code);
  }
  return Status::OK();
}

}  // namespace

Result<std::string> DescribeJob(
    Storage& storage, const JobOptions& options, const Say& say, std::stop_token stop
) {
  MS_ASSIGN_OR_RETURN(
      const PreparedJob job, PrepareJob(storage, options, PrepareFor::kPreview, say, stop)
  );
  std::string out;
  DescribePlan(job, out);
  Collect collect;
  MS_RETURN_NOT_OK(
      RunFirstSegment(job, LimitSplits(job.plan.splits, kSampleRows, /*spread=*/false), collect)
  );
  if (collect.skipped > 0) out += fmt::format("skipped: {} rows of the sample\n", collect.skipped);
  if (const GenerateStep* step = job.bound.segments.front().generate.get()) {
    MS_RETURN_NOT_OK(DescribePrompts(job, *step, collect, out));
  } else {
    for (const auto& [code, count] : collect.errors) {
      out += fmt::format("errors to expect: {} x {} in the sample\n", count, code);
    }
  }
  MS_ASSIGN_OR_RETURN(const OutputLayout layout, OutputLayoutOf(job.spec));
  out += fmt::format("output: {}\nnothing was written\n", layout.output);
  return out;
}

Result<ExplainedRow> ExplainRow(
    Storage& storage,
    const JobOptions& options,
    const std::string& place,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  const std::size_t colon = place.rfind(':');
  std::int64_t record = 0;
  if (colon == std::string::npos ||
      std::from_chars(place.data() + colon + 1, place.data() + place.size(), record).ptr !=
          place.data() + place.size()) {
    return Status::Invalid("--row takes FILE:RECORD, the record counted from 1: '", place, "'");
  }
  MS_ASSIGN_OR_RETURN(
      const PreparedJob job, PrepareJob(storage, options, PrepareFor::kPreview, say, stop)
  );
  const std::string name = place.substr(0, colon);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < job.plan.snapshot.files.size(); ++i) {
    const InputFile& file = job.plan.snapshot.files[i];
    names.push_back(file.name);
    if (file.name != name && file.path != name) continue;
    if (record < 1 || record > file.num_records) {
      return Status::Invalid(
          fmt::format("{} has records 1 to {}, not {}", name, file.num_records, record)
      );
    }
    const std::vector<Split> splits = {{0, {{static_cast<std::int32_t>(i), record, 1}}, 1}};
    ExplainedRow explained;
    Collect collect;
    MS_RETURN_NOT_OK(RunFirstSegment(job, splits, collect));
    if (const GenerateStep* step = job.bound.segments.front().generate.get();
        step != nullptr && !collect.batches.empty()) {
      MS_ASSIGN_OR_RETURN(const auto rows, step->Prepare(collect.batches.front(), 0, 1));
      explained.prompt = rows.front().prompt;
    }
    MS_ASSIGN_OR_RETURN(explained.preview, RunInMemory(job, splits, options, monitor, say, stop));
    return explained;
  }
  return Status::Invalid(fmt::format("no input file is named '{}'{}", name, DidYouMean(name, names))
  );
}

}  // namespace millstream
