// SPDX-License-Identifier: Apache-2.0
// The obvious way, against which the others are tested; and what runs where there is no AVX2.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/quantized.h"
#include "kernels/simd_peak.h"
#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

float RoundTo(Precision precision, float value) {
  return precision == Precision::kBf16 ? Bf16ToF32(F32ToBf16(value)) : value;
}

std::int64_t RowBytes(std::int64_t columns) {
  return PaddedLength(columns) * static_cast<std::int64_t>(sizeof(float));
}

// A panel is [32][columns] f32, its padding not stored.
std::int64_t PanelBytes(std::int64_t columns, PanelKind /*kind*/) {
  return kPanelRows * PaddedLength(columns) * static_cast<std::int64_t>(sizeof(float));
}

template <Precision kPrecision>
void Pack(const PanelSource& source, void* panel) {
  const std::int64_t padded = PaddedLength(source.columns);
  DequantizeRows(source);
  auto* packed = static_cast<float*>(panel);
  for (std::int64_t r = 0; r < kPanelRows; ++r) {
    for (std::int64_t k = 0; k < padded; ++k) {
      const bool inside = r < source.num_rows && k < source.columns;
      packed[r * padded + k] =
          inside ? RoundTo(kPrecision, source.scratch[r * source.columns + k]) : 0.0F;
    }
  }
}

void Multiply(const PanelProduct& product) {
  const auto* activations = static_cast<const float*>(product.activations);
  const auto* panel = static_cast<const float*>(product.panel);
  for (std::int64_t r = 0; r < product.rows; ++r) {
    for (std::int64_t n = 0; n < kPanelRows; ++n) {
      float sum = product.bias != nullptr ? product.bias[n] : 0.0F;
      for (std::int64_t k = 0; k < product.columns; ++k) {
        sum += activations[r * product.columns + k] * panel[n * product.columns + k];
      }
      float& output = product.output[r * product.output_stride + n];
      output = product.accumulate ? output + sum : sum;
    }
  }
}

float FloatAt(const std::byte* at) {
  float value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// One weight's q, and the f16 beside it: 0 the scale, 1 the minimum.
int QuantizedAt(const std::byte* block, PanelKind kind, std::int64_t output, std::int64_t k) {
  const std::int64_t within = output * 4 + k % 4;
  if (kind != PanelKind::kNibbles)
    return std::to_integer<int>(block[k / 4 * kPanelRows * 4 + within]);
  const int both = std::to_integer<int>(block[k / 8 * kPanelRows * 4 + within]);
  return k / 4 % 2 == 0 ? both & 15 : both >> 4;
}
float HalfAt(const std::byte* block, PanelKind kind, std::int64_t output, std::int64_t which) {
  std::uint16_t half;
  std::memcpy(&half, block + QuantizedBytes(kind) + 2 * (which * kPanelRows + output), sizeof half);
  return F16ToF32(half);
}

float DotInt8(const PanelProduct& product, const std::byte* row, std::int64_t output) {
  const auto* block = static_cast<const std::byte*>(product.panel);
  const PanelKind kind = product.kind;
  const std::int64_t columns = BlockColumns(kind);
  const std::byte* sums = row + SumsOffset(product.columns, columns);
  float sum = 0;
  for (std::int64_t b = 0; b < product.columns / columns; ++b) {
    if (b * columns % kGroupColumns == 0 && b > 0) {
      const std::int64_t group = b * columns / kGroupColumns;
      sum *= FloatAt(row + RatiosOffset(product.columns) + group * 4);
    }
    int dot = 0;
    for (std::int64_t k = 0; k < columns; ++k) {
      dot += QuantizedAt(block, kind, output, k) * static_cast<std::int8_t>(row[b * columns + k]);
    }
    sum += static_cast<float>(dot) * HalfAt(block, kind, output, 0);
    sum += FloatAt(sums + b * 4) * HalfAt(block, kind, output, 1);
    block += PanelBlockBytes(kind);
  }
  return sum * FloatAt(row + ScaleOffset(product.columns));
}

void MultiplyInt8(const PanelProduct& product) {
  const auto* row = static_cast<const std::byte*>(product.activations);
  for (std::int64_t r = 0; r < product.rows; ++r, row += QuantizedRowBytes(product.columns)) {
    for (std::int64_t n = 0; n < kPanelRows; ++n) {
      const float bias = product.bias != nullptr ? product.bias[n] : 0.0F;
      const float sum = DotInt8(product, row, n) + bias;
      float& output = product.output[r * product.output_stride + n];
      output = product.accumulate ? output + sum : sum;
    }
  }
}

void RoundInt8(const float* values, std::int64_t length, void* activations) {
  const std::int64_t columns = PaddedLength(length);
  auto* row = static_cast<std::byte*>(activations);
  const auto put = [&](std::int64_t place, float value) {
    std::memcpy(row + place, &value, sizeof value);
  };
  float scale = 1;
  for (std::int64_t first = 0; first < columns; first += kGroupColumns) {
    const std::int64_t end = std::min(first + kGroupColumns, columns);
    float largest = 0;
    for (std::int64_t k = first; k < std::min(end, length); ++k) {
      largest = std::abs(values[k]) <= largest ? largest : std::abs(values[k]);
      if (std::isnan(values[k])) break;
    }
    const float before = scale;
    if (!(largest <= 1e30F)) {
      scale = std::numeric_limits<float>::quiet_NaN();
    } else if (largest > 1e-30F) {
      scale = largest / 127;
    }
    put(RatiosOffset(columns) + first / kGroupColumns * 4, before / scale);
    const float inverse = largest > 1e-30F && largest <= 1e30F ? 127 / largest : 0.0F;
    for (std::int64_t k = first; k < end; ++k) {
      const bool is_finite = k < length && std::isfinite(values[k]);
      const float q = is_finite ? std::nearbyint(values[k] * inverse) : 0.0F;
      row[k] = static_cast<std::byte>(static_cast<std::int8_t>(q));
    }
    for (const std::int64_t width : {32, 16}) {
      for (std::int64_t block = first; block < end; block += width) {
        float sum = 0;
        for (std::int64_t k = block; k < block + width; ++k)
          sum += static_cast<std::int8_t>(row[k]);
        put(SumsOffset(columns, width) + block / width * 4, sum);
      }
    }
  }
  put(ScaleOffset(columns), scale);
}

void RmsNormInt8(
    const float* values, const float* weight, std::int64_t length, float epsilon, void* activations
) {
  float sum = 0;
  for (std::int64_t i = 0; i < length; ++i) sum += values[i] * values[i];
  const float scale = 1 / std::sqrt(sum / static_cast<float>(length) + epsilon);
  std::vector<float> normed(static_cast<std::size_t>(length));
  for (std::int64_t i = 0; i < length; ++i) {
    normed[static_cast<std::size_t>(i)] = values[i] * scale * weight[i];
  }
  RoundInt8(normed.data(), length, activations);
}

template <Precision kPrecision>
void Round(const float* values, std::int64_t length, void* activations) {
  auto* rounded = static_cast<float*>(activations);
  for (std::int64_t i = 0; i < length; ++i) rounded[i] = RoundTo(kPrecision, values[i]);
  for (std::int64_t i = length; i < PaddedLength(length); ++i) rounded[i] = 0;
}

template <Precision kPrecision>
void RmsNorm(
    const float* values, const float* weight, std::int64_t length, float epsilon, void* activations
) {
  float sum = 0;
  for (std::int64_t i = 0; i < length; ++i) sum += values[i] * values[i];
  const float scale = 1 / std::sqrt(sum / static_cast<float>(length) + epsilon);
  auto* normed = static_cast<float*>(activations);
  for (std::int64_t i = 0; i < length; ++i) {
    normed[i] = RoundTo(kPrecision, values[i] * scale * weight[i]);
  }
  for (std::int64_t i = length; i < PaddedLength(length); ++i) normed[i] = 0;
}

void Swiglu(const float* gate, const float* up, std::int64_t length, float* outputs) {
  for (std::int64_t i = 0; i < length; ++i) outputs[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

void Geglu(const float* gate, const float* up, std::int64_t length, float* outputs) {
  for (std::int64_t i = 0; i < length; ++i) {
    const float cube = gate[i] * gate[i] * gate[i];
    const float inner = kGeluSlope * (gate[i] + kGeluCubic * cube);
    outputs[i] = 0.5F * gate[i] * (1 + std::tanh(inner)) * up[i];
  }
}

// A page is [2][16][head_dim] f32: keys, then values.
std::int64_t PageBytes(std::int64_t head_dim) {
  return 2 * kPageTokens * head_dim * static_cast<std::int64_t>(sizeof(float));
}

template <Precision kPrecision>
void Store(
    const float* key, const float* value, std::int64_t head_dim, std::int64_t slot, std::byte* page
) {
  float* keys = reinterpret_cast<float*>(page);
  float* values = keys + kPageTokens * head_dim;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    keys[slot * head_dim + d] = RoundTo(kPrecision, key[d]);
    values[slot * head_dim + d] = RoundTo(kPrecision, value[d]);
  }
}

// Queries and weights are rounded as the cache is.
template <Precision kPrecision>
void AttendRow(
    const Attention& attention, const AttentionToken& token, std::int64_t first_of_head
) {
  const std::int64_t head_dim = attention.head_dim;
  const auto page = [&](std::int64_t position) {
    return reinterpret_cast<const float*>(
        attention.cache + token.pages[position / kPageTokens] * attention.page_stride
    );
  };
  const std::int64_t end = token.position + 1;
  const std::int64_t begin =
      attention.window > 0 ? std::max<std::int64_t>(0, end - attention.window) : 0;
  std::vector<float> scores(static_cast<std::size_t>(end), 0.0F);
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t t = begin; t < end; ++t) {
    const float* key = page(t) + (t % kPageTokens) * head_dim;
    const float* query = token.queries + first_of_head;
    float& score = scores[static_cast<std::size_t>(t)];
    for (std::int64_t d = 0; d < head_dim; ++d) score += RoundTo(kPrecision, query[d]) * key[d];
    largest = score > largest ? score : largest;
  }
  float total = 0;
  std::vector<float> sums(static_cast<std::size_t>(head_dim), 0.0F);
  for (std::int64_t t = begin; t < end; ++t) {
    const float weight =
        RoundTo(kPrecision, std::exp(scores[static_cast<std::size_t>(t)] - largest));
    const float* value = page(t) + (kPageTokens + t % kPageTokens) * head_dim;
    total += weight;
    for (std::int64_t d = 0; d < head_dim; ++d) {
      sums[static_cast<std::size_t>(d)] += weight * value[d];
    }
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    token.output[first_of_head + d] = sums[static_cast<std::size_t>(d)] / total;
  }
}

template <Precision kPrecision>
void Attend(const Attention& attention) {
  for (std::int64_t i = 0; i < attention.num_tokens; ++i) {
    for (std::int64_t g = 0; g < attention.group; ++g) {
      AttendRow<kPrecision>(attention, attention.tokens[i], g * attention.head_dim);
    }
  }
}

void Exponentials(
    const float* values, std::int64_t length, float shift, float scale, float* outputs
) {
  for (std::int64_t i = 0; i < length; ++i) outputs[i] = std::exp((values[i] - shift) * scale);
}

std::int64_t ArgMax(const float* values, std::int64_t length) {
  std::int64_t best = 0;
  for (std::int64_t i = 0; i < length; ++i) {
    if (std::isnan(values[i])) return -1;
    if (values[i] > values[best]) best = i;
  }
  return best;
}

template <Precision kPrecision>
constexpr Kernels kTable = {
    .isa = Isa::kReference,
    .precision = kPrecision,
    .row_bytes = RowBytes,
    .panel_bytes = PanelBytes,
    .pack = Pack<kPrecision>,
    .multiply = Multiply,
    .round = Round<kPrecision>,
    .rms_norm = RmsNorm<kPrecision>,
    .swiglu = Swiglu,
    .geglu = Geglu,
    .page_bytes = PageBytes,
    .store = Store<kPrecision>,
    .attend = Attend<kPrecision>,
    .exponentials = Exponentials,
    .arg_max = ArgMax,
};

constexpr Kernels kInt8Table = {
    .isa = Isa::kReference,
    .precision = Precision::kInt8,
    .row_bytes = QuantizedRowBytes,
    .panel_bytes = QuantizedPanelBytes,
    .pack = PackQuantized,
    .multiply = MultiplyInt8,
    .round = RoundInt8,
    .rms_norm = RmsNormInt8,
    .swiglu = Swiglu,
    .geglu = Geglu,
    .page_bytes = PageBytes,
    .store = Store<Precision::kBf16>,
    .attend = Attend<Precision::kBf16>,
    .exponentials = Exponentials,
    .arg_max = ArgMax,
};

// What every x86-64 has.
struct Sse {
  using F [[gnu::vector_size(16)]] = float;
  using I [[gnu::vector_size(16)]] = std::int32_t;
  static constexpr int kWidth = 4;
  static F Set(float x) { return F{x, x, x, x}; }
  static F Fma(F a, F b, F c) { return a * b + c; }
  static I LoadBytes(const char* x) {
    I bytes;
    std::memcpy(&bytes, x, sizeof bytes);
    return bytes;
  }
};

}  // namespace

const Kernels& ReferenceKernels(Precision precision) {
  if (precision == Precision::kInt8) return kInt8Table;
  return precision == Precision::kBf16 ? kTable<Precision::kBf16> : kTable<Precision::kF32>;
}

PeakLoops ReferencePeakLoops() {
  constexpr auto kF32 = AddInRegisters<AddF32<Sse>, Sse::F, 12>;
  return {kF32, kF32, kF32, ReadBytes<Sse>};
}

}  // namespace millstream::kernels
