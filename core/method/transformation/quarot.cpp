#include "core/method/transformation/quarot.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <unordered_map>

#include "core/base/error.h"
#include "core/method/changed_source.h"
#include "core/model/hadamard.h"

namespace qb {
namespace {

// x·Q for rows x [n, hidden], Q orthogonal.
class Rotation {
 public:
  Rotation(int64_t size, bool hadamard, uint64_t seed) : hadamard_(hadamard) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    if (hadamard) {
      signs_ = at::randint(0, 2, {size}, generator, at::kDouble) * 2 - 1;
    } else {
      // The Q of a Gaussian matrix, with R's signs moved over, is uniformly distributed (Mezzadri 2007).
      const auto [q, r] = at::linalg_qr(at::randn({size, size}, generator, at::kDouble));
      matrix_ = q * r.diagonal().sign();
    }
  }
  at::Tensor rows(const at::Tensor& x) const {
    const at::Tensor wide = x.to(at::kDouble);
    return hadamard_ ? apply_hadamard(wide * signs_) : wide.matmul(matrix_);
  }

 private:
  bool hadamard_;
  at::Tensor signs_, matrix_;
};

// What becomes of each tensor: W·diag(γ)·Q for readers, QᵀW for writers, 1 for the norms that went into the readers.
class RotatedSource final : public ChangedSource {
 public:
  enum class Kind { reader, writer, norm, embedding, head, bias };
  struct Change {
    Kind kind = Kind::reader;
    std::string norm;         // reader: whose weight it takes in
    bool plus_one = false;    // that norm, or this one, multiplies by 1 + weight
    bool hadamard = false;    // writer whose input is rotated at run time
    std::string from;         // head of a tied model: the embedding's tensor
  };

  // streams: of each layer; its graph already says which inputs are rotated at run time.
  RotatedSource(const Model& model, Rotation rotation, const std::vector<ResidualStream>& streams) : ChangedSource(model.source), rotation_(std::move(rotation)) {
    const Architecture& a = model.architecture;
    const NameTable& n = a.names;
    const bool plus_one = is_plus_one(a.norm);
    changes_[n.embedding + ".weight"] = {.kind = Kind::embedding};
    changes_[n.head + ".weight"] = {.kind = Kind::head, .norm = n.final_norm + ".weight", .plus_one = plus_one, .from = a.tied_embeddings ? n.embedding + ".weight" : ""};
    changes_[n.final_norm + ".weight"] = {.kind = Kind::norm, .plus_one = plus_one};
    for (size_t b = 0; b < streams.size(); ++b) {
      const std::string prefix = a.block_prefix(static_cast<int64_t>(b));
      const LayerSpec& layer = a.layers[b];
      for (const ResidualStream::Reader& reader : streams[b].readers) {
        const std::string norm = prefix + reader.norm + ".weight";
        const bool one = is_plus_one(reader.kind);
        changes_[norm] = {.kind = Kind::norm, .plus_one = one};
        for (int l : reader.linears) changes_[prefix + layer.linears[static_cast<size_t>(l)].name + ".weight"] = {.kind = Kind::reader, .norm = norm, .plus_one = one};
        for (const std::string& router : reader.routers) changes_[prefix + router + ".weight"] = {.kind = Kind::reader, .norm = norm, .plus_one = one};
      }
      for (int l : streams[b].writers) {
        const LinearSpec& linear = layer.linears[static_cast<size_t>(l)];
        changes_[prefix + linear.name + ".weight"] = {.kind = Kind::writer, .hadamard = layer.graph.value(linear.input).hadamard};
        changes_[prefix + linear.name + ".bias"] = {.kind = Kind::bias};
      }
    }
    auto add_changed = [this](TensorInfo info) {
      if (changes_.contains(info.name)) info.dtype = DType::f32;
      add(std::move(info));
    };
    for (const TensorInfo& info : base_->tensors()) add_changed(info);
    if (a.tied_embeddings) {
      TensorInfo head = *base_->find(n.embedding + ".weight");
      head.name = n.head + ".weight";
      if (!base_->contains(head.name)) add_changed(head);
    }
  }

  at::Tensor read(const std::string& name) const override {
    const auto it = changes_.find(name);
    if (it == changes_.end()) return base_->read(name);
    const Change& change = it->second;
    const at::Tensor value = base_->read(change.from.empty() ? name : change.from).to(at::kDouble);
    at::Tensor result;
    switch (change.kind) {
      case Kind::norm: result = change.plus_one ? at::zeros_like(value) : at::ones_like(value); break;
      case Kind::embedding: result = rotation_.rows(value); break;
      case Kind::bias: result = rotation_.rows(value.unsqueeze(0)).squeeze(0); break;
      case Kind::writer:
        result = rotation_.rows(value.t()).t();
        if (change.hadamard) result = apply_hadamard(result.contiguous());
        break;
      case Kind::reader:
      case Kind::head: {
        const at::Tensor gamma = base_->read(change.norm).to(at::kDouble);
        result = rotation_.rows(value * (change.plus_one ? gamma + 1 : gamma));
        break;
      }
    }
    return result.to(at::kFloat).contiguous();
  }

 private:
  Rotation rotation_;
  std::unordered_map<std::string, Change> changes_;
};

bool rotates_at_run_time(const StageSpec& stage, const LayerGraph& graph, ValueId input) {
  return std::get<bool>(knob(stage, is_context(graph, input) ? "online_heads" : "online_down"));
}

std::shared_ptr<const Model> rotate(const StageSpec& stage, const std::shared_ptr<const Model>& model, const std::string&, uint64_t seed) {
  const Architecture& a = model->architecture;
  auto refuse = [&](const std::string& what) { throw InputError(fmt::format("quarot: {} ({}): {}", model->info.name, a.family, what)); };
  // A rotation passes through RMSNorm only; what scales the residual stream by channel stands in its way.
  if (is_layer_norm(a.norm) || !a.norm_affine) refuse("rotations need RMS norms with weights");
  std::vector<ResidualStream> streams;
  for (const LayerSpec& layer : a.layers) {
    streams.push_back(residual_stream(layer.graph));
    if (!streams.back().obstacle.empty()) refuse(streams.back().obstacle);
  }
  if (!a.names.embedding_norm.empty() || a.position == PositionKind::learned || a.embedding_size != a.hidden_size || !a.final_norm)
    refuse("its embeddings cannot be rotated");
  const bool hadamard = std::get<std::string>(knob(stage, "rotate_mode")) == "hadamard";
  auto require_order = [&](int64_t n, const char* what) {
    if (!hadamard_matrix(n)) refuse(fmt::format("no Hadamard matrix of order {} ({}) is known here; use rotate_mode random, and no online rotation", n, what));
  };
  if (hadamard) require_order(a.hidden_size, "hidden size");
  auto rotated = std::make_shared<Model>(*model);
  Architecture& changed = rotated->architecture;
  for (size_t b = 0; b < streams.size(); ++b)
    for (int l : streams[b].writers) {
      LayerSpec& layer = changed.layers[b];
      const LinearSpec& linear = layer.linears[static_cast<size_t>(l)];
      if (!rotates_at_run_time(stage, layer.graph, linear.input)) continue;
      require_order(linear.in, is_context(layer.graph, linear.input) ? "attention width" : "MLP width");
      layer.graph.rotate_at_run_time(linear.input);
    }
  rotated->source = std::make_shared<RotatedSource>(*rotated, Rotation(a.hidden_size, hadamard, seed), streams);
  if (a.tied_embeddings) changed.globals.push_back({a.names.head + ".weight", {a.vocabulary, a.embedding_size}});
  changed.tied_embeddings = false;
  rotated->info.tied_embeddings = false;
  return rotated;
}

}  // namespace

MethodInfo quarot_info() {
  return {.name = "quarot",
          .title = "QuaRot rotation",
          .kind = MethodClass::transformation,
          .help = "Rotates the residual stream by a Hadamard or random orthogonal matrix, folded into the weights; unties the head.",
          .source = "Ashkboos et al. 2024, arXiv 2404.00456",
          .needs_calibration = false,
          .contract = {.place = Place::model, .leaves = Trace::transforms},
          .knobs = {
              {"rotate_mode", "Rotation", KnobType::choice, std::string("hadamard"), 0, 0, {"hadamard", "random"}, "", "a Hadamard matrix with random signs, or a random orthogonal one", "QuaRot"},
              {"online_down", "Rotate down projection inputs", KnobType::boolean, false, 0, 0, {}, "", "also rotate the input of down projections, at run time", "QuaRot"},
              {"online_heads", "Rotate attention output", KnobType::boolean, false, 0, 0, {}, "", "also rotate the attention's output, at run time", "QuaRot"},
          }};
}

std::unique_ptr<Method> make_quarot(const StageSpec&) { return make_outside_blocks(); }
ModelChange quarot_change() { return {"quarot", nullptr, rotate}; }

std::vector<ValueId> quarot_online(const StageSpec& stage, const LayerGraph& graph, const std::vector<LinearSpec>& linears) {
  std::vector<ValueId> rotated;
  for (int writer : residual_stream(graph).writers)
    if (const ValueId input = linears[static_cast<size_t>(writer)].input; rotates_at_run_time(stage, graph, input)) rotated.push_back(input);
  return rotated;
}

}  // namespace qb
