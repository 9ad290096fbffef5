// SPDX-License-Identifier: Apache-2.0
#include "job/verify.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "data/digest.h"
#include "fmt/format.h"
#include "job/output.h"

namespace millstream {
namespace {

bool Bit(const std::string& bits, std::int64_t at) {
  const auto byte = static_cast<std::size_t>(at / 8);
  return byte < bits.size() && (static_cast<unsigned char>(bits[byte]) >> (at % 8) & 1) != 0;
}

// What is found of a split, or of all splits of a single file.
struct Found {
  RowCounts counts;
  std::vector<bool> rows;  // by their place
};

Status CountRows(
    const StandingOutput& output,
    const Split& split,
    const std::string& path,
    RowDigest* digest,
    Found& found
) {
  return ReadRows(output, split, path, [&](const auto& batch, const auto& places) -> Status {
    for (const PlacedRow& row : places) {
      if (row.status == "ok") {
        ++found.counts.ok;
      } else if (row.status == "error") {
        ++found.counts.error;
      } else if (row.status == "skipped") {
        ++found.counts.skipped;
      } else {
        return Conflict(fmt::format("{}: a row has the _status '{}'", path, row.status));
      }
      const auto place = static_cast<std::size_t>(row.index);
      if (found.rows[place]) {
        return Conflict(fmt::format("{}: row {} of its split is there twice", path, row.index));
      }
      found.rows[place] = true;
    }
    return digest == nullptr ? Status::OK() : digest->Add(*batch);
  });
}

Status Compare(const RowCounts& seen, const RowCounts& expected, const std::string& path) {
  if (seen == expected) return Status::OK();
  return Conflict(fmt::format(
      "{} holds {} ok, {} error, {} skipped rows; committed were {}, {}, {}",
      path,
      seen.ok,
      seen.error,
      seen.skipped,
      expected.ok,
      expected.error,
      expected.skipped
  ));
}

class Verifier {
 public:
  Verifier(const StandingOutput& output, const VerifyOptions& options)
      : output_(output), options_(options), digest_(output.plan.output) {}

  Result<Verification> Run() {
    const Ledger& ledger = *output_.ledger;
    MS_ASSIGN_OR_RETURN(const auto parts, ledger.Parts());
    MS_ASSIGN_OR_RETURN(intents_, ledger.Intents());
    MS_ASSIGN_OR_RETURN(const auto success, ledger.Success());
    // While a retry or an append is under way the file is the one of before, and the parts tell.
    is_one_file_ = ledger.layout().is_single_file && success && ledger.success_is_current();
    const auto num_splits = static_cast<std::int64_t>(output_.plan.splits.size());
    for (const auto& [split, part] : parts) {
      if (split >= num_splits) {
        return Conflict(ledger.layout().PartPath(split) + " is of no split of the plan");
      }
    }
    for (const Split& split : output_.plan.splits) {
      const auto part = parts.find(split.number);
      if (part == parts.end()) {
        result_.rows_missing += split.num_rows;
        continue;
      }
      MS_RETURN_NOT_OK(CheckSplit(split, part->second));
    }
    result_.complete = result_.rows_missing == 0;
    if (is_one_file_) MS_RETURN_NOT_OK(CheckOneFile());
    if (success) MS_RETURN_NOT_OK(CheckSuccess(*success));
    if (options_.deep) MS_RETURN_NOT_OK(CheckRowLogs());
    if (options_.digest) result_.digest = digest_.Hex();
    return result_;
  }

 private:
  // Of committed counts, those of rows that a part shows.
  RowCounts Shown(const RowCounts& committed) const {
    return {
        output_.keep_ok ? committed.ok : 0,
        output_.keep_errors ? committed.error : 0,
        output_.keep_skipped ? committed.skipped : 0
    };
  }

  RowDigest* digest() { return options_.digest ? &digest_ : nullptr; }

  Status CheckSplit(const Split& split, const CommittedPart& part) {
    const OutputLayout& layout = output_.ledger->layout();
    const std::string path = layout.PartPath(split.number);
    Found found;
    found.rows.resize(static_cast<std::size_t>(split.num_rows));
    if (!is_one_file_) {
      MS_RETURN_NOT_OK(CountRows(output_, split, path, digest(), found));
      MS_RETURN_NOT_OK(Compare(found.counts, Shown(part.counts), path));
    }
    if (options_.deep) MS_RETURN_NOT_OK(output_.ledger->CheckPart(split.number, part));
    if (!output_.keep_errors && part.counts.error > 0) {
      if (!part.errors) return Conflict(path + ": its failed rows are not accounted for");
      const std::string errors = layout.ErrorsPath(split.number, part.errors->hash);
      Found failed;
      failed.rows = found.rows;
      MS_RETURN_NOT_OK(CountRows(output_, split, errors, nullptr, failed));
      MS_RETURN_NOT_OK(Compare(failed.counts, {0, part.counts.error, 0}, errors));
      found.rows = failed.rows;
    }
    if (part.counts.total() != split.num_rows) {
      return Conflict(fmt::format(
          "{}: {} rows are committed, its split has {}", path, part.counts.total(), split.num_rows
      ));
    }
    if (!is_one_file_ && output_.keep_ok) {
      MS_RETURN_NOT_OK(CheckSkipped(split, part, path, found.rows));
    }
    result_.counts += part.counts;
    ++result_.parts;
    return Status::OK();
  }

  // The rows that are nowhere are those that the intent calls skipped.
  Status CheckSkipped(
      const Split& split,
      const CommittedPart& part,
      const std::string& path,
      const std::vector<bool>& found
  ) const {
    const CommittedPart* const intent = FindIntent(intents_, split.number, part);
    if (intent == nullptr) return Conflict(path + ": the intent that names it is gone");
    const std::string& skipped = intent->skipped_rows;
    for (std::int64_t row = 0; row < split.num_rows; ++row) {
      const bool is_found = found[static_cast<std::size_t>(row)];
      if (is_found != (output_.keep_skipped || !Bit(skipped, row))) {
        return Conflict(fmt::format(
            "{}: row {} of its split is {}", path, row, is_found ? "skipped, and there" : "lost"
        ));
      }
    }
    return Status::OK();
  }

  // The single file, which holds the rows of all parts.
  Status CheckOneFile() {
    const std::string& path = output_.ledger->layout().output;
    MS_ASSIGN_OR_RETURN(const bool stands, output_.ledger->OutputStands());
    const std::string& errors = output_.ledger->layout().errors;
    if (!stands) {
      return Conflict(
          path + (errors.empty() ? " is" : " or " + errors + " is") +
          " gone: run the job again to write it from its parts"
      );
    }
    Split all;
    for (const Split& split : output_.plan.splits) {
      all.ranges.insert(all.ranges.end(), split.ranges.begin(), split.ranges.end());
      all.num_rows += split.num_rows;
    }
    Found found;
    found.rows.resize(static_cast<std::size_t>(all.num_rows));
    MS_RETURN_NOT_OK(CountRows(output_, all, path, digest(), found));
    MS_RETURN_NOT_OK(Compare(found.counts, Shown(result_.counts), path));
    if (!errors.empty()) {
      found.counts = {};
      MS_RETURN_NOT_OK(CountRows(output_, all, errors, nullptr, found));
      MS_RETURN_NOT_OK(Compare(found.counts, {0, result_.counts.error, 0}, errors));
    }
    return options_.deep ? output_.ledger->CheckOutputBytes() : Status::OK();
  }

  Status CheckSuccess(const nlohmann::ordered_json& success) const {
    const RowCounts stated{
        success.value("ok", std::int64_t{-1}),
        success.value("error", std::int64_t{-1}),
        success.value("skipped", std::int64_t{-1})
    };
    // One of before a retry that was interrupted, or of an earlier plan, says something else.
    if (!output_.ledger->success_is_current() || stated == result_.counts) return Status::OK();
    return Conflict(fmt::format(
        "{}/success.json states {} ok, {} error, {} skipped rows; the parts hold {}, {}, {}",
        output_.ledger->layout().state,
        stated.ok,
        stated.error,
        stated.skipped,
        result_.counts.ok,
        result_.counts.error,
        result_.counts.skipped
    ));
  }

  Status CheckRowLogs() const {
    MS_ASSIGN_OR_RETURN(const auto splits, output_.ledger->LoggedSplits());
    for (const std::int64_t split : splits) {
      MS_ASSIGN_OR_RETURN(const LoadedRows rows, output_.ledger->LoadRows(split));
      if (!rows.damage.empty()) return Conflict(rows.damage.front());
    }
    return Status::OK();
  }

  const StandingOutput& output_;
  const VerifyOptions options_;
  PartIntents intents_;
  bool is_one_file_ = false;
  RowDigest digest_;
  Verification result_;
};

}  // namespace

Result<Verification> VerifyOutput(
    Storage& storage, const std::string& path, const VerifyOptions& options
) {
  MS_ASSIGN_OR_RETURN(const StandingOutput output, OpenOutput(storage, path));
  return Verifier(output, options).Run();
}

}  // namespace millstream
