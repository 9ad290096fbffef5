// SPDX-License-Identifier: Apache-2.0
// Weights from where they lie in the file to the panels that the kernels read.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/dequantize.h"
#include "kernels/quantized.h"
#include "model/llama.h"

namespace millstream {
namespace {

using kernels::kPanelRows;

kernels::WeightType ToWeightType(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return kernels::WeightType::kF32;
    case TensorType::kF16:
      return kernels::WeightType::kF16;
    case TensorType::kBF16:
      return kernels::WeightType::kBf16;
    case TensorType::kQ8_0:
      return kernels::WeightType::kQ8_0;
    case TensorType::kQ4_0:
      return kernels::WeightType::kQ4_0;
    case TensorType::kQ4_1:
      return kernels::WeightType::kQ4_1;
    case TensorType::kQ5_0:
      return kernels::WeightType::kQ5_0;
    case TensorType::kQ5_1:
      return kernels::WeightType::kQ5_1;
    case TensorType::kQ4_K:
      return kernels::WeightType::kQ4_K;
    case TensorType::kQ5_K:
      return kernels::WeightType::kQ5_K;
    case TensorType::kQ6_K:
      return kernels::WeightType::kQ6_K;
  }
  return kernels::WeightType::kF32;
}

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

const std::byte* RowOf(const TensorView& tensor, std::int64_t row) {
  const kernels::WeightType type = ToWeightType(tensor.type);
  const std::int64_t blocks = tensor.shape.back() / kernels::BlockValues(type);
  return tensor.data + row * blocks * kernels::BlockBytes(type);
}

}  // namespace

void ReadTensorRow(const TensorView& tensor, std::int64_t row, float* values) {
  kernels::Dequantize(ToWeightType(tensor.type), RowOf(tensor, row), tensor.shape.back(), values);
}

/// Lists what is to be packed, finds room for it, then packs it on all threads.
class LlamaLoader {
 public:
  LlamaLoader(LlamaModel& model, const Checkpoint& checkpoint)
      : model_(model), checkpoint_(checkpoint) {}

  Status Load(kernels::Team& team) {
    MS_RETURN_NOT_OK(List());
    MS_RETURN_NOT_OK(Allocate());
    team.For(total_panels_, 4, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch;
      for (std::int64_t p = begin; p < end; ++p) PackPanel(p, scratch);
    });
    return FillVectors();
  }

 private:
  using Matrix = LlamaModel::Matrix;

  struct Part {
    const TensorView* weight;
    const TensorView* bias;
    std::int64_t head_dim;  // of rows that neighbour in pairs and must part into halves; else 0
  };
  struct Source {
    Matrix* matrix;
    std::vector<Part> parts;
    bool interleaved;  // panels of the two parts in turn
    std::int64_t first_panel = 0;
  };
  struct Vector {  // a norm's weights
    const float** place;
    const TensorView* tensor;
  };
  struct Place {
    const Part* part;  // null: padding
    std::int64_t row;
  };

  Status List() {
    const ModelConfig& config = checkpoint_.config();
    model_.layers_.resize(Size(config.layers));
    for (std::int64_t i = 0; i < config.layers; ++i) {
      MS_RETURN_NOT_OK(ListLayer("blk." + std::to_string(i) + ".", model_.layers_[Size(i)]));
    }
    MS_ASSIGN_OR_RETURN(model_.embeddings_, Find("token_embd.weight"));
    MS_RETURN_NOT_OK(AddVector("output_norm.weight", &model_.final_norm_));
    const TensorView* head = checkpoint_.Find("output.weight");
    if (config.tied_embeddings || head == nullptr) head = model_.embeddings_;
    Add(&model_.head_, {{head, checkpoint_.Find("output.bias"), 0}}, false);
    return Status::OK();
  }

  Status ListLayer(const std::string& prefix, LlamaModel::Layer& layer) {
    const ModelConfig& config = checkpoint_.config();
    const std::int64_t rope = config.rope_interleaved ? config.head_dim : 0;
    const auto part = [&](const char* name, std::int64_t head_dim) -> Result<Part> {
      MS_ASSIGN_OR_RETURN(const TensorView* weight, Find(prefix + name + ".weight"));
      return Part{weight, checkpoint_.Find(prefix + name + ".bias"), head_dim};
    };
    MS_ASSIGN_OR_RETURN(const Part q, part("attn_q", rope));
    MS_ASSIGN_OR_RETURN(const Part k, part("attn_k", rope));
    MS_ASSIGN_OR_RETURN(const Part v, part("attn_v", 0));
    MS_ASSIGN_OR_RETURN(const Part output, part("attn_output", 0));
    MS_ASSIGN_OR_RETURN(const Part gate, part("ffn_gate", 0));
    MS_ASSIGN_OR_RETURN(const Part up, part("ffn_up", 0));
    MS_ASSIGN_OR_RETURN(const Part down, part("ffn_down", 0));
    Add(&layer.qkv, {q, k, v}, false);
    Add(&layer.output, {output}, false);
    Add(&layer.gate_up, {gate, up}, true);
    Add(&layer.down, {down}, false);
    if (config.head_norms) {
      MS_RETURN_NOT_OK(AddVector(prefix + "attn_q_norm.weight", &layer.query_norm));
      MS_RETURN_NOT_OK(AddVector(prefix + "attn_k_norm.weight", &layer.key_norm));
    }
    if (config.post_norms) {
      MS_RETURN_NOT_OK(AddVector(prefix + "post_attention_norm.weight", &layer.post_attention_norm)
      );
      MS_RETURN_NOT_OK(AddVector(prefix + "post_ffw_norm.weight", &layer.post_feed_forward_norm));
    }
    MS_RETURN_NOT_OK(AddVector(prefix + "attn_norm.weight", &layer.attention_norm));
    return AddVector(prefix + "ffn_norm.weight", &layer.feed_forward_norm);
  }

  Result<const TensorView*> Find(const std::string& name) const {
    const TensorView* tensor = checkpoint_.Find(name);
    if (tensor == nullptr) return Status::Invalid("the model has no tensor ", name);
    return tensor;
  }

  Status AddVector(const std::string& name, const float** place) {
    MS_ASSIGN_OR_RETURN(const TensorView* tensor, Find(name));
    vectors_.push_back({place, tensor});
    return Status::OK();
  }

  void Add(Matrix* matrix, std::vector<Part> parts, bool interleaved) {
    std::int64_t rows = 0;
    for (const Part& part : parts) rows += part.weight->shape[0];
    matrix->num_panels = (rows + kPanelRows - 1) / kPanelRows;
    if (interleaved) {
      matrix->num_panels = 2 * ((parts[0].weight->shape[0] + kPanelRows - 1) / kPanelRows);
    }
    const std::int64_t columns = parts[0].weight->shape[1];
    matrix->columns = kernels::PaddedLength(columns);
    matrix->kind = kernels::PanelKind::kNibbles;
    for (const Part& part : parts) {
      matrix->kind = std::max(matrix->kind, kernels::PanelKindOf(ToWeightType(part.weight->type)));
    }
    matrix->panel_bytes = model_.kernels_.panel_bytes(columns, matrix->kind);
    sources_.push_back({matrix, std::move(parts), interleaved, total_panels_});
    total_panels_ += matrix->num_panels;
  }

  static bool HasBias(const Source& source) {
    return std::any_of(source.parts.begin(), source.parts.end(), [](const Part& part) {
      return part.bias != nullptr;
    });
  }

  Status Allocate() {
    CheckedSize bytes(0);
    for (const Source& source : sources_) {
      const Matrix& matrix = *source.matrix;
      bytes = bytes + CheckedSize(static_cast<std::uint64_t>(matrix.panel_bytes)) *
                          static_cast<std::uint64_t>(matrix.num_panels);
      if (HasBias(source)) {
        bytes = bytes + static_cast<std::uint64_t>(matrix.num_panels * kPanelRows * 4);
      }
    }
    for (const Vector& vector : vectors_) {
      bytes =
          bytes + static_cast<std::uint64_t>(kernels::PaddedLength(vector.tensor->shape[0]) * 4);
    }
    model_.weights_ = kernels::HugeBuffer(bytes.value().value_or(0));
    if (model_.weights_.data() == nullptr) {
      return Status::OutOfMemory("not enough memory for the model's weights");
    }
    std::byte* next = model_.weights_.data();
    for (Source& source : sources_) {
      source.matrix->panels = next;
      next += source.matrix->panel_bytes * source.matrix->num_panels;
    }
    next_vector_ = reinterpret_cast<float*>(next);
    return Status::OK();
  }

  static Place PlaceOf(const Source& source, std::int64_t panel, std::int64_t row) {
    std::int64_t index = panel * kPanelRows + row;
    if (source.interleaved) {
      const Part& part = source.parts[Size(panel % 2)];
      index = panel / 2 * kPanelRows + row;
      return index < part.weight->shape[0] ? Place{&part, index} : Place{nullptr, 0};
    }
    for (const Part& part : source.parts) {
      if (index < part.weight->shape[0]) return {&part, PermuteRow(index, part.head_dim)};
      index -= part.weight->shape[0];
    }
    return {nullptr, 0};
  }

  /// Row `index` of the halves' order, in the neighbours' order.
  static std::int64_t PermuteRow(std::int64_t index, std::int64_t head_dim) {
    if (head_dim == 0) return index;
    const std::int64_t within = index % head_dim;
    const std::int64_t half = head_dim / 2;
    return index - within + (within < half ? 2 * within : 2 * (within - half) + 1);
  }

  void PackPanel(std::int64_t index, std::vector<float>& scratch) {
    const auto after = std::upper_bound(
        sources_.begin(),
        sources_.end(),
        index,
        [](std::int64_t panel, const Source& source) { return panel < source.first_panel; }
    );
    const Source& source = *(after - 1);
    const std::int64_t panel = index - source.first_panel;
    const std::int64_t columns = source.parts[0].weight->shape[1];
    scratch.resize(Size(kPanelRows * columns));
    kernels::PanelSource rows{{}, 0, columns, source.matrix->kind, scratch.data()};
    for (; rows.num_rows < kPanelRows; ++rows.num_rows) {
      const Place place = PlaceOf(source, panel, rows.num_rows);
      if (place.part == nullptr) break;  // padding stands at the end
      const TensorView& tensor = *place.part->weight;
      rows.rows[rows.num_rows] = {ToWeightType(tensor.type), RowOf(tensor, place.row)};
    }
    std::byte* packed = model_.weights_.data() + (source.matrix->panels - model_.weights_.data()) +
                        panel * source.matrix->panel_bytes;
    model_.kernels_.pack(rows, packed);
  }

  Status FillVectors() {
    for (const Vector& vector : vectors_) {
      ReadTensorRow(*vector.tensor, 0, next_vector_);
      const std::int64_t length = vector.tensor->shape[0];
      for (std::int64_t i = 0; i < length; ++i) next_vector_[i] += model_.config().norm_offset;
      *vector.place = std::exchange(next_vector_, next_vector_ + kernels::PaddedLength(length));
    }
    for (const Source& source : sources_) {
      if (HasBias(source)) FillBias(source);
    }
    return Status::OK();
  }

  void FillBias(const Source& source) {
    const std::int64_t rows = source.matrix->num_panels * kPanelRows;
    for (const Part& part : source.parts) {
      if (part.bias == nullptr) continue;
      std::vector<float> bias(Size(part.bias->shape[0]));
      ReadTensorRow(*part.bias, 0, bias.data());
      for (std::int64_t i = 0; i < rows; ++i) {
        const Place place = PlaceOf(source, i / kPanelRows, i % kPanelRows);
        if (place.part == &part) next_vector_[i] = bias[Size(place.row)];
      }
    }
    source.matrix->bias = std::exchange(next_vector_, next_vector_ + rows);
  }

  LlamaModel& model_;
  const Checkpoint& checkpoint_;
  std::vector<Source> sources_;
  std::vector<Vector> vectors_;
  std::int64_t total_panels_ = 0;
  float* next_vector_ = nullptr;
};

namespace {

Status FillRope(
    const RopeFrequencies& rope,
    std::int64_t context,
    std::vector<float>& cosines,
    std::vector<float>& sines
) {
  cosines.reserve(Size(context) * rope.turns.size());
  sines.reserve(Size(context) * rope.turns.size());
  for (std::int64_t position = 0; position < context; ++position) {
    for (const double turn : rope.turns) {
      const double angle = static_cast<double>(position) * turn;
      if (!std::isfinite(angle)) {
        return Status::Invalid("the model's RoPE frequencies are not finite");
      }
      cosines.push_back(static_cast<float>(std::cos(angle) * rope.magnitude));
      sines.push_back(static_cast<float>(std::sin(angle) * rope.magnitude));
    }
  }
  return Status::OK();
}

/// rope_freqs.weight, or nothing.
std::vector<float> RopeFactors(const Checkpoint& checkpoint) {
  std::vector<float> factors;
  if (const TensorView* tensor = checkpoint.Find("rope_freqs.weight")) {
    factors.resize(Size(tensor->shape[0]));
    ReadTensorRow(*tensor, 0, factors.data());
  }
  return factors;
}

}  // namespace

LlamaModel::LlamaModel(
    std::shared_ptr<const Checkpoint> checkpoint, const kernels::Kernels& kernels
)
    : checkpoint_(std::move(checkpoint)), kernels_(kernels) {}

Result<std::shared_ptr<const LlamaModel>> LlamaModel::Load(
    std::shared_ptr<const Checkpoint> checkpoint,
    const kernels::Kernels& kernels,
    std::int64_t context,
    kernels::Team& team
) {
  const ModelConfig& config = checkpoint->config();
  if (config.head_dim > kernels::kMaxHeadDim) {
    return Status::Invalid(
        "a head size of ", config.head_dim, " is not supported; up to ", kernels::kMaxHeadDim, " is"
    );
  }
  std::shared_ptr<LlamaModel> model(new LlamaModel(checkpoint, kernels));
  model->context_ = context;
  const RopeFrequencies turns = MakeRopeFrequencies(config, RopeFactors(*checkpoint));
  MS_RETURN_NOT_OK(FillRope(turns, context, model->rope_.cosines, model->rope_.sines));
  if (config.window > 0) {
    ModelConfig windowed = config;
    windowed.rope_theta = config.window_rope_theta;
    windowed.rope_scaling = {};
    Rope& rope = model->window_rope_;
    MS_RETURN_NOT_OK(FillRope(MakeRopeFrequencies(windowed, {}), context, rope.cosines, rope.sines)
    );
  }
  LlamaLoader loader(*model, *checkpoint);
  MS_RETURN_NOT_OK(loader.Load(team));
  return model;
}

}  // namespace millstream
