// SPDX-License-Identifier: Apache-2.0
// The products of a model of SmolLM2-135M's shape alone, as the model computes them: their share of
// what the machine can do at most, measured in the same process.
//
//   kernels_bench [--threads N]
//
// MILLSTREAM_ISA forces an instruction set.
#include "kernels/kernels.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "engine/machine.h"
#include "engine/native_engine.h"
#include "kernels/huge_buffer.h"
#include "kernels/probe.h"
#include "kernels/quantized.h"
#include "model/product.h"

namespace millstream {
namespace {

using kernels::kPanelRows;
using kernels::Precision;
using kernels::WeightType;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kLayers = 30, kHidden = 576, kFeedForward = 1536, kVocabulary = 49152;
constexpr std::int64_t kQkv = (9 + 2 * 3) * 64;
constexpr std::int64_t kLogitRows = 64;  // at a time, as the engine does
constexpr std::int64_t kTokens[] = {1, 8, 64, 128, 256, 512};
constexpr std::int64_t kMaxTokens = 512;

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

struct Shape {
  std::int64_t outputs, columns;
  std::int64_t parameters() const { return outputs * columns; }
};
constexpr std::array<Shape, 4> kLayer = {
    {{kQkv, kHidden}, {kHidden, kHidden}, {2 * kFeedForward, kHidden}, {kHidden, kFeedForward}}
};
constexpr Shape kHead = {kVocabulary, kHidden};

struct Format {
  const char* name;
  WeightType type;
  Precision precision;
};
constexpr Format kFormats[] = {
    {"bf16", WeightType::kBf16, Precision::kBf16},
    {"int8 of Q4_1", WeightType::kQ4_1, Precision::kInt8},
    {"int8 of Q8_0", WeightType::kQ8_0, Precision::kInt8},
};

/// Random rows of a file's weights. Halves that are scales or values get an exponent near 0.
std::vector<std::byte> RandomRows(WeightType type, std::int64_t columns) {
  const std::int64_t block = kernels::BlockBytes(type);
  std::vector<std::byte> rows(Size(kPanelRows * columns / kernels::BlockValues(type) * block));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<std::byte>(RandomBits({1, 2}, i));
    const std::int64_t place = static_cast<std::int64_t>(i) % block;
    const std::int64_t last_half = type == WeightType::kQ4_1 ? 3 : 1;
    if (place % 2 == 1 && place <= last_half)
      rows[i] = (rows[i] & std::byte{0x83}) | std::byte{0x3c};
  }
  return rows;
}

/// All matrices, one after the other, as a model has them.
class Weights {
 public:
  Weights(const kernels::Kernels& kernels, const Format& format, kernels::Team& team)
      : kernels_(kernels), format_(format) {
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      for (const Shape& shape : kLayer) Add(shape);
    }
    Add(kHead);
    memory_ = kernels::HugeBuffer(Size(bytes_));
    MS_CHECK(memory_.data() != nullptr);
    std::byte* next = memory_.data();
    for (PackedMatrix& matrix : matrices_) {
      Pack(matrix, next, team);
      next += matrix.num_panels * matrix.panel_bytes;
    }
  }

  std::span<const PackedMatrix> layers() const {
    return std::span(matrices_).first(matrices_.size() - 1);
  }
  const PackedMatrix& head() const { return matrices_.back(); }
  std::int64_t bytes() const { return bytes_; }

 private:
  void Add(const Shape& shape) {
    PackedMatrix& matrix = matrices_.emplace_back();
    matrix.num_panels = shape.outputs / kPanelRows;
    matrix.columns = shape.columns;
    matrix.kind = kernels::PanelKindOf(format_.type);
    matrix.panel_bytes = kernels_.panel_bytes(shape.columns, matrix.kind);
    bytes_ += matrix.num_panels * matrix.panel_bytes;
  }

  /// The same numbers in each panel, but each in its own memory.
  void Pack(PackedMatrix& matrix, std::byte* to, kernels::Team& team) {
    matrix.panels = to;
    const std::vector<std::byte> rows = RandomRows(format_.type, matrix.columns);
    team.For(matrix.num_panels, 4, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(Size(kPanelRows * matrix.columns));
      kernels::PanelSource source{{}, kPanelRows, matrix.columns, matrix.kind, scratch.data()};
      for (std::int64_t r = 0; r < kPanelRows; ++r) {
        source.rows[r] = {format_.type, rows.data() + r * std::ssize(rows) / kPanelRows};
      }
      for (std::int64_t p = begin; p < end; ++p) kernels_.pack(source, to + p * matrix.panel_bytes);
    });
  }

  const kernels::Kernels& kernels_;
  const Format& format_;
  std::vector<PackedMatrix> matrices_;
  std::int64_t bytes_ = 0;
  kernels::HugeBuffer memory_;
};

std::vector<std::byte> Activations(const kernels::Kernels& kernels, std::int64_t columns) {
  const std::int64_t row_bytes = kernels.row_bytes(columns);
  std::vector<std::byte> activations(Size(kMaxTokens * row_bytes));
  std::vector<float> values(Size(columns));
  for (std::int64_t t = 0; t < kMaxTokens; ++t) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(RandomUnit({3, static_cast<std::uint64_t>(t)}, i)) - 0.5F;
    }
    kernels.round(values.data(), columns, activations.data() + t * row_bytes);
  }
  return activations;
}

struct Times {
  double layers, head;  // seconds
};

/// The best of a few passes for each.
class Passes {
 public:
  Passes(const kernels::Kernels& kernels, const Weights& weights, kernels::Team& team)
      : kernels_(kernels), weights_(weights), team_(team) {}

  Times Best(std::int64_t tokens) {
    Times best{1e9, 1e9};
    for (std::int64_t pass = 0; pass < 3 + 64 / tokens; ++pass) {
      const auto begin = Clock::now();
      for (const PackedMatrix& matrix : weights_.layers()) {
        const auto& rows = matrix.columns == kHidden ? narrow_ : wide_;
        Multiply(kernels_, matrix, rows.data(), tokens, outputs_.data(), false, team_);
      }
      const auto middle = Clock::now();
      for (std::int64_t first = 0; first < tokens; first += kLogitRows) {
        const std::int64_t count = std::min(kLogitRows, tokens - first);
        const std::byte* rows = narrow_.data() + first * kernels_.row_bytes(kHidden);
        Multiply(kernels_, weights_.head(), rows, count, outputs_.data(), false, team_);
      }
      const auto end = Clock::now();
      best.layers = std::min(best.layers, std::chrono::duration<double>(middle - begin).count());
      best.head = std::min(best.head, std::chrono::duration<double>(end - middle).count());
    }
    return best;
  }

 private:
  const kernels::Kernels& kernels_;
  const Weights& weights_;
  kernels::Team& team_;
  const std::vector<std::byte> narrow_ = Activations(kernels_, kHidden);
  const std::vector<std::byte> wide_ = Activations(kernels_, kFeedForward);
  std::vector<float> outputs_ = std::vector<float>(Size(kLogitRows * kVocabulary));
};

// Again for each format: machines change from minute to minute.
kernels::Peaks MeasureAndPrintPeaks(kernels::Isa isa, kernels::Team& team) {
  const kernels::Peaks peaks = kernels::MeasurePeaks(isa, team, AvailableMemoryBytes() / 4);
  std::printf(
      "%s on %d threads, at most: f32 %.0f, bf16 %.0f, int8 %.0f G operations/s; memory %.1f "
      "GB/s\n",
      std::string(kernels::IsaName(isa)).c_str(),
      team.size(),
      peaks.f32_flops / 1e9,
      peaks.bf16_flops / 1e9,
      peaks.int8_ops / 1e9,
      peaks.bytes_per_second / 1e9
  );
  return peaks;
}

std::int64_t Parameters() {
  std::int64_t parameters = kHead.parameters();
  for (const Shape& shape : kLayer) parameters += kLayers * shape.parameters();
  return parameters;
}

void PrintBytes(const Format& format, std::int64_t packed, double seconds, double peak) {
  const std::int64_t stored =
      Parameters() / kernels::BlockValues(format.type) * kernels::BlockBytes(format.type);
  for (const auto& [how, bytes] : {std::pair("packed", packed), std::pair("stored", stored)}) {
    const double rate = static_cast<double>(bytes) / seconds;
    std::printf(
        "%14s weights as %s: %.1f GB/s, %.0f %% of memory's\n",
        "",
        how,
        rate / 1e9,
        100 * rate / peak
    );
  }
}

void Measure(kernels::Isa isa, const Format& format, kernels::Team& team) {
  const kernels::Kernels& kernels = kernels::GetKernels(isa, format.precision);
  const Weights weights(kernels, format, team);
  Passes passes(kernels, weights, team);
  const kernels::Peaks peaks = MeasureAndPrintPeaks(isa, team);
  const double peak = format.precision == Precision::kBf16 ? peaks.bf16_flops : peaks.int8_ops;
  std::printf("%-14s tokens  layers, ms  head, ms  tokens/s     G/s  of peak\n", "weights");
  for (const std::int64_t tokens : kTokens) {
    const Times times = passes.Best(tokens);
    const double seconds = times.layers + times.head;
    const double rate = 2 * static_cast<double>(Parameters() * tokens) / seconds;
    std::printf(
        "%-14s %6lld %11.2f %9.2f %9.0f %7.0f %6.0f %%\n",
        format.name,
        static_cast<long long>(tokens),
        times.layers * 1e3,
        times.head * 1e3,
        static_cast<double>(tokens) / seconds,
        rate / 1e9,
        100 * rate / peak
    );
    if (tokens == 1) PrintBytes(format, weights.bytes(), seconds, peaks.bytes_per_second);
  }
}

int Run(int threads) {
  const auto isa = kernels::IsaByName(InstructionSet("auto"));
  if (!isa || !kernels::IsSupported(*isa)) {
    std::fprintf(stderr, "kernels_bench: this machine has no MILLSTREAM_ISA of that name\n");
    return 1;
  }
  kernels::Team team(threads > 0 ? threads : UsableCores());
  for (const Format& format : kFormats) Measure(*isa, format, team);
  return 0;
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  int threads = 0;
  if (argc == 3 && std::string(argv[1]) == "--threads") {
    threads = std::atoi(argv[2]);
  } else if (argc != 1) {
    std::fprintf(stderr, "kernels_bench [--threads N]\n");
    return 1;
  }
  return millstream::Run(threads);
}
