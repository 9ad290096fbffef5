// SPDX-License-Identifier: Apache-2.0
#include "cli/print.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "arrow/array/array_binary.h"
#include "base/log.h"
#include "data/json_value.h"
#include "fmt/format.h"

namespace millstream {
namespace {

// Characters, so that columns line up; wide ones count one.
std::size_t Width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

// A path as a shell reads it back, in quotes if need be.
std::string ShellWord(const std::string& text) {
  constexpr std::string_view kPlain = "%+,-./:=@_";
  const bool is_plain = std::all_of(text.begin(), text.end(), [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || kPlain.find(c) != kPlain.npos;
  });
  if (is_plain) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

std::string CutTo(const std::string& text, std::size_t width) {
  if (Width(text) <= width) return text;
  std::size_t at = 0;
  for (std::size_t count = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0U) != 0x80U && ++count > width - 1) break;
  }
  return text.substr(0, at) + "…";
}

std::string Cell(const arrow::Array& array, std::int64_t row, bool one_line) {
  if (array.IsNull(row)) return "";
  std::string text;
  if (!WriteJson(array, row, text).ok()) return "?";
  if (array.type_id() == arrow::Type::STRING) {
    const auto view = static_cast<const arrow::StringArray&>(array).GetView(row);
    text.assign(view);
    if (one_line) {
      std::replace_if(
          text.begin(), text.end(), [](char c) { return c == '\n' || c == '\t' || c == '\r'; }, ' '
      );
    }
  } else if (!arrow::is_nested(array.type_id()) && text.starts_with('"')) {
    text = text.substr(1, text.size() - 2);  // a date, a time, bytes
  }
  std::erase_if(text, [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\n';
  });  // no escape sequences
  return text;
}

// Where the native engine's time went.
void PrintTimes(const EngineStats& engine) {
  const std::int64_t time = engine.products_time + engine.attention_time + engine.head_time +
                            engine.sampling_time + engine.rest_time + engine.idle_time;
  if (time == 0) return;
  const auto share = [&](std::int64_t part) {
    return 100 * static_cast<double>(part) / static_cast<double>(time);
  };
  fmt::print(
      stderr,
      "engine: {:.0f} tokens a step, {} prompt tokens taken from its cache; time: {:.1f} % "
      "products, "
      "{:.1f} % attention, {:.1f} % output head, {:.1f} % sampling, {:.1f} % rest, {:.1f} % "
      "without "
      "rows\n",
      static_cast<double>(engine.computed_tokens) / static_cast<double>(engine.steps),
      Grouped(engine.cached_tokens),
      share(engine.products_time),
      share(engine.attention_time),
      share(engine.head_time),
      share(engine.sampling_time),
      share(engine.rest_time),
      share(engine.idle_time)
  );
}

void PrintEngine(const EngineStats& engine) {
  PrintTimes(engine);
  if (engine.shared_requests > 0) {
    fmt::print(
        stderr,
        "{} answers came with that of an identical request\n",
        Grouped(engine.shared_requests)
    );
  }
  if (engine.cost > 0) {
    fmt::print(stderr, "cost: {:.{}f}, by `price`\n", engine.cost, engine.cost < 1 ? 5 : 2);
  }
  if (engine.restarts > 0) {
    fmt::print(
        stderr,
        "engine: restarted {} times: {} lost through no row's fault; rows that killed it: {} by a "
        "crash, {} by hanging, {} for want of memory\n",
        engine.restarts,
        engine.workers_lost,
        engine.requests_crashed,
        engine.requests_hung,
        engine.requests_out_of_memory
    );
  }
}

}  // namespace

std::size_t TerminalWidth(int descriptor) {
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 120;
}

bool SplitPairs(
    const std::vector<std::string>& pairs, std::vector<std::pair<std::string, std::string>>* out
) {
  for (const std::string& pair : pairs) {
    const std::size_t at = pair.find('=');
    if (at == std::string::npos || at == 0) {
      fmt::print(stderr, "millstream: '{}' is not NAME=VALUE\n", pair);
      return false;
    }
    out->emplace_back(pair.substr(0, at), pair.substr(at + 1));
  }
  return true;
}

void SayToPerson(const std::string& message) {
  constexpr std::string_view kWarning = "warning: ";
  if (message.starts_with(kWarning)) {
    spdlog::warn("{}", message.substr(kWarning.size()));
  } else {
    spdlog::info("{}", message);
  }
}

int Complain(const Status& status) {
  fmt::print(stderr, "millstream: {}\n", status.message());
  return static_cast<int>(ExitCodeOf(status));
}

void PrintSummary(const JobReport& report) {
  const char* end = report.exit == ExitCode::kStopped ? "stopped" : "done";
  const std::int64_t rows = report.rows.total() - report.rows_before.total();
  fmt::print(
      stderr,
      "{}: {} ok, {} error, {} skipped",
      end,
      Grouped(report.rows.ok),
      Grouped(report.rows.error),
      Grouped(report.rows.skipped)
  );
  if (rows > 0) {
    fmt::print(
        stderr,
        "; {} rows in {:.1f} s ({:.1f} rows/s)",
        Grouped(rows),
        report.seconds,
        static_cast<double>(rows) / report.seconds
    );
  }
  fmt::print(stderr, "\n");
  if (report.tokens.prompt_tokens > 0) {
    const std::string runaways =
        report.tokens.runaways > 0
            ? fmt::format(", {} as runaways", Grouped(report.tokens.runaways))
            : "";
    fmt::print(
        stderr,
        "tokens: {} prompt, {} output ({:.0f} and {:.0f} a second); {} answers cut at "
        "max_tokens{}\n",
        Grouped(report.tokens.prompt_tokens),
        Grouped(report.tokens.completion_tokens),
        static_cast<double>(report.tokens.prompt_tokens) / report.seconds,
        static_cast<double>(report.tokens.completion_tokens) / report.seconds,
        Grouped(report.cut_answers),
        runaways
    );
  }
  PrintEngine(report.tokens);
  for (const auto& [code, sample] : report.errors) {
    fmt::print(stderr, "  {} x {}: {}\n", Grouped(sample.count), code, sample.example);
  }
  if (report.exit == ExitCode::kStopped) {
    const char* on_request = "stopped on request: run the same command again to resume";
    fmt::print(stderr, "{}\n", report.why_stopped.empty() ? on_request : report.why_stopped);
  } else if (report.exit == ExitCode::kTooManyErrors) {
    fmt::print(
        stderr,
        "more rows failed than max_errors allows; all are accounted for: `millstream errors {}` "
        "lists "
        "them.\nto run them again, with what mends them:\n  millstream retry {} --set PATH=VALUE\n",
        ShellWord(report.output),
        ShellWord(report.output)
    );
  }
  fmt::print(stderr, "output: {}\n", report.output);
}

void PrintTable(
    const arrow::Schema& schema, const arrow::RecordBatchVector& batches, std::int64_t limit
) {
  std::vector<std::vector<std::string>> table(1);
  std::vector<int> shown;
  for (int i = 0; i < schema.num_fields(); ++i) {
    const std::string& name = schema.field(i)->name();
    if (name == "_source" || name.ends_with("_meta")) continue;
    shown.push_back(i);
    table[0].push_back(name);
  }
  for (const auto& batch : batches) {
    for (std::int64_t row = 0;
         row < batch->num_rows() && static_cast<std::int64_t>(table.size()) <= limit;
         ++row) {
      auto& cells = table.emplace_back();
      for (int i : shown) cells.push_back(Cell(*batch->column(i), row, /*one_line=*/true));
    }
  }
  std::vector<std::size_t> widths(shown.size());
  for (const auto& cells : table) {
    for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], Width(cells[i]));
  }
  // The widest column gives way until the line fits.
  const std::size_t room = TerminalWidth(STDOUT_FILENO);
  const auto total = [&] {
    std::size_t sum = 0;
    for (std::size_t w : widths) sum += w + 2;
    return sum;
  };
  while (total() > room) {
    auto widest = std::max_element(widths.begin(), widths.end());
    if (widest == widths.end() || *widest <= 8) break;
    --*widest;
  }
  for (const auto& cells : table) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string cell = CutTo(cells[i], widths[i]);
      line += cell + std::string(widths[i] - std::min(widths[i], Width(cell)) + 2, ' ');
    }
    while (line.ends_with(' ')) line.pop_back();
    fmt::print("{}\n", line);
  }
}

void PrintRecords(const arrow::Schema& schema, const arrow::RecordBatchVector& batches) {
  for (const auto& batch : batches) {
    for (std::int64_t row = 0; row < batch->num_rows(); ++row) {
      for (int i = 0; i < schema.num_fields(); ++i) {
        fmt::print(
            "{}: {}\n", schema.field(i)->name(), Cell(*batch->column(i), row, /*one_line=*/false)
        );
      }
    }
  }
}

}  // namespace millstream
