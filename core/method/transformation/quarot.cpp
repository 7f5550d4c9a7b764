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
    bool hadamard = false;    // writer whose input is rotated at run time
    std::string from;         // head of a tied model: the embedding's tensor
  };

  RotatedSource(const Model& model, Rotation rotation, bool down, bool heads) : ChangedSource(model.source), rotation_(std::move(rotation)) {
    const Architecture& a = model.architecture;
    const NameTable& n = a.names;
    plus_one_ = a.norm == NormKind::rms_plus_one;
    changes_[n.embedding + ".weight"] = {Kind::embedding, {}, false, {}};
    changes_[n.head + ".weight"] = {Kind::head, n.final_norm + ".weight", false, a.tied_embeddings ? n.embedding + ".weight" : ""};
    changes_[n.final_norm + ".weight"] = {Kind::norm, {}, false, {}};
    for (int64_t b = 0; b < a.blocks; ++b) {
      const std::string prefix = a.block_prefix(b);
      const LayerSpec& layer = a.layers[static_cast<size_t>(b)];
      for (const LinearSpec& linear : layer.linears) {
        const std::string name = prefix + linear.name;
        switch (linear.role) {
          case LinearRole::q: case LinearRole::k: case LinearRole::v: case LinearRole::qkv:
            changes_[name + ".weight"] = {Kind::reader, prefix + n.input_norm + ".weight", false, {}};
            break;
          case LinearRole::o: case LinearRole::down: case LinearRole::expert_down: case LinearRole::shared_down:
            changes_[name + ".weight"] = {Kind::writer, {}, linear.role == LinearRole::o ? heads : down, {}};
            changes_[name + ".bias"] = {Kind::bias, {}, false, {}};
            break;
          default:
            changes_[name + ".weight"] = {Kind::reader, prefix + (a.parallel && n.mlp_norm.empty() ? n.input_norm : n.mlp_norm) + ".weight", false, {}};
        }
      }
      for (const std::string& router : {n.router, n.shared_router})
        if (layer.experts && !router.empty()) changes_[prefix + router + ".weight"] = {Kind::reader, prefix + n.mlp_norm + ".weight", false, {}};
      for (const std::string& norm : {n.input_norm, n.mlp_norm})
        if (!norm.empty()) changes_[prefix + norm + ".weight"] = {Kind::norm, {}, false, {}};
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
      case Kind::norm: result = plus_one_ ? at::zeros_like(value) : at::ones_like(value); break;
      case Kind::embedding: result = rotation_.rows(value); break;
      case Kind::bias: result = rotation_.rows(value.unsqueeze(0)).squeeze(0); break;
      case Kind::writer:
        result = rotation_.rows(value.t()).t();
        if (change.hadamard) result = apply_hadamard(result.contiguous());
        break;
      case Kind::reader:
      case Kind::head: {
        const at::Tensor gamma = base_->read(change.norm).to(at::kDouble);
        result = rotation_.rows(value * (plus_one_ ? gamma + 1 : gamma));
        break;
      }
    }
    return result.to(at::kFloat).contiguous();
  }

 private:
  Rotation rotation_;
  bool plus_one_ = false;
  std::unordered_map<std::string, Change> changes_;
};

std::shared_ptr<const Model> rotate(const StageSpec& stage, const std::shared_ptr<const Model>& model, const std::string&, uint64_t seed) {
  const Architecture& a = model->architecture;
  auto refuse = [&](const std::string& what) { throw InputError(fmt::format("quarot: {} ({}): {}", model->info.name, a.family, what)); };
  // A rotation passes through RMSNorm only; what scales the residual stream by channel stands in its way.
  if (a.norm == NormKind::layer || !a.norm_affine) refuse("rotations need RMS norms with weights");
  if (a.norm_after || a.residual_after_norm) refuse("norms after the residual addition do not commute with a rotation");
  if (!a.names.post_attention_norm.empty() || !a.names.post_mlp_norm.empty()) refuse("norms of a block's outputs do not commute with a rotation");
  if (!a.names.embedding_norm.empty() || a.position == PositionKind::learned || a.embedding_size != a.hidden_size || !a.final_norm)
    refuse("its embeddings cannot be rotated");
  const bool hadamard = std::get<std::string>(knob(stage, "rotate_mode")) == "hadamard";
  const bool down = std::get<bool>(knob(stage, "online_down")), heads = std::get<bool>(knob(stage, "online_heads"));
  auto require_order = [&](int64_t n, const char* what) {
    if (!hadamard_matrix(n)) refuse(fmt::format("no Hadamard matrix of order {} ({}) is known here; use rotate_mode random, and no online rotation", n, what));
  };
  if (hadamard) require_order(a.hidden_size, "hidden size");
  for (const LayerSpec& layer : a.layers)
    for (const LinearSpec& linear : layer.linears) {
      if (down && (linear.role == LinearRole::down || linear.role == LinearRole::expert_down || linear.role == LinearRole::shared_down))
        require_order(linear.in, "MLP width");
      if (heads && linear.role == LinearRole::o) require_order(linear.in, "attention width");
    }
  auto rotated = std::make_shared<Model>(*model);
  rotated->source = std::make_shared<RotatedSource>(*model, Rotation(a.hidden_size, hadamard, seed), down, heads);
  if (a.tied_embeddings) rotated->architecture.globals.push_back({a.names.head + ".weight", {a.vocabulary, a.embedding_size}});
  rotated->architecture.tied_embeddings = false;
  rotated->info.tied_embeddings = false;
  rotated->architecture.hadamard_down = down;
  rotated->architecture.hadamard_heads = heads;
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
              {"rotate_mode", KnobType::choice, std::string("hadamard"), 0, 0, {"hadamard", "random"}, "", "a Hadamard matrix with random signs, or a random orthogonal one", "QuaRot"},
              {"online_down", KnobType::boolean, false, 0, 0, {}, "", "also rotate the input of down projections, at run time", "QuaRot"},
              {"online_heads", KnobType::boolean, false, 0, 0, {}, "", "also rotate the attention's output, at run time", "QuaRot"},
          }};
}

std::unique_ptr<Method> make_quarot(const StageSpec&) { return make_outside_blocks(); }
ModelChange quarot_change() { return {"quarot", nullptr, rotate}; }

}  // namespace qb
