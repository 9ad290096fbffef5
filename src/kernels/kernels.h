// SPDX-License-Identifier: Apache-2.0
// What a transformer computes, on raw pointers: one table of functions for each instruction set and
// precision.
//
// Batch-invariant: each output is one sum in one order, whatever else is computed with it. A
// product never splits its inner dimension; attention sums blocks of kAttentionBlock tokens at
// fixed positions, in order.
//
// Widths. Vectors are padded with zeros to PaddedLength() values. Weights are packed into panels of
// kPanelRows output features. Activations, the left side of a product, are rows in a format of the
// table's own, one after the other, row_bytes() each.
//
// All functions are thread-safe.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dequantize.h"
#include "kernels/isa.h"

namespace millstream::kernels {

/// What weights, activations and the cache are rounded to. In kInt8, weights and activations are 8
/// bits or less with scales (quantized.h), and the cache is bf16. Sums are f32 in all.
enum class Precision { kF32, kBf16, kInt8 };

constexpr std::int64_t kPanelRows = 32;
constexpr std::int64_t kPageTokens = 16;
constexpr std::int64_t kMaxHeadDim = 256;

constexpr std::int64_t PaddedLength(std::int64_t length) {
  return (length + 31) / 32 * 32;
}

/// How a panel of kInt8 holds weights (quantized.h): those before a kind fit into it too.
enum class PanelKind { kNibbles, kBytes, kBytes16 };

/// Up to 32 rows of a matrix, as a file holds them.
struct PanelSource {
  struct Row {
    WeightType type;
    const std::byte* data;
  };
  Row rows[kPanelRows];
  std::int64_t num_rows;  // the others are zeros
  std::int64_t columns;   // of each
  PanelKind kind;         // the widest of what the matrix's rows need
  float* scratch;         // [32][columns]
};

/// `rows` activations by one panel: output[r][0..32) = (output if accumulate) + bias +
/// activations[r] . panel.
struct PanelProduct {
  const void* activations;
  std::int64_t rows;
  const void* panel;
  const void* next_panel;  // to fetch meanwhile; any address will do
  std::int64_t columns;    // padded
  PanelKind kind;          // as it was packed
  const float* bias;       // [32], or null
  float* output;           // [rows][output_stride]
  std::int64_t output_stride;
  bool accumulate;
};

/// Positions whose scores and values attention takes at once.
constexpr std::int64_t kAttentionBlock = 128;

/// A token whose query heads look at the cache.
struct AttentionToken {
  const float* queries;       // heads of head_dim; already scaled
  float* output;              // laid out as the queries
  std::int64_t position;      // it sees those up to its own
  const std::int32_t* pages;  // page p of its sequence lies at cache + pages[p] * page_stride
};

/// Attention of some tokens, for the query heads that share one head of the cache.
struct Attention {
  const AttentionToken* tokens;
  std::int64_t num_tokens;
  std::int64_t group;     // query heads
  std::int64_t head_dim;  // even
  const std::byte* cache;
  std::int64_t page_stride;  // bytes
  // Positions below it are on the same pages for all tokens, and read once for all: a multiple of
  // kAttentionBlock, or above every token's position.
  std::int64_t shared;
  std::int64_t window = 0;  // how many positions back a token sees, itself included; 0: all
};

struct Kernels {
  Isa isa;
  Precision precision;

  /// Bytes of a row of activations.
  std::int64_t (*row_bytes)(std::int64_t columns);
  /// Bytes of a packed panel of `columns` (unpadded).
  std::int64_t (*panel_bytes)(std::int64_t columns, PanelKind kind);
  void (*pack)(const PanelSource& source, void* panel);
  void (*multiply)(const PanelProduct& product);

  /// A row of activations = values, rounded; padded with zeros.
  void (*round)(const float* values, std::int64_t length, void* activations);
  /// A row of activations = values * weight / sqrt(mean(values^2) + epsilon); padded with zeros.
  void (*rms_norm)(
      const float* values,
      const float* weight,
      std::int64_t length,
      float epsilon,
      void* activations
  );
  /// outputs = silu(gate) * up. The length is a multiple of 32.
  void (*swiglu)(const float* gate, const float* up, std::int64_t length, float* outputs);
  /// The same with gelu, as tanh approximates it, in place of silu.
  void (*geglu)(const float* gate, const float* up, std::int64_t length, float* outputs);

  /// Bytes of one cache page of one head: the keys and values of 16 tokens.
  std::int64_t (*page_bytes)(std::int64_t head_dim);
  /// Rounds one token's key and value into slot `slot` of a page.
  void (*store)(
      const float* key,
      const float* value,
      std::int64_t head_dim,
      std::int64_t slot,
      std::byte* page
  );
  void (*attend)(const Attention& attention);

  /// outputs = exp((values - shift) * scale).
  void (*exponentials)(
      const float* values, std::int64_t length, float shift, float scale, float* outputs
  );
  /// The first of the largest values; -1 if there is a NaN among them.
  std::int64_t (*arg_max)(const float* values, std::int64_t length);
};

/// REQUIRES: IsSupported(isa).
const Kernels& GetKernels(Isa isa, Precision precision);

/// Turns pairs (i, i + head_dim / 2) of each head by the angles of a position, and scales the
/// result.
void Rotate(
    float* heads,
    std::int64_t num_heads,
    std::int64_t head_dim,
    const float* cosines,
    const float* sines,
    float scale
);

/// Each of `count` rows of `length` = row * weight / sqrt(mean(row^2) + epsilon), in f32.
void NormInPlace(
    float* rows, std::int64_t count, std::int64_t length, const float* weight, float epsilon
);

}  // namespace millstream::kernels
