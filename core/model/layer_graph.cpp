#include "core/model/layer_graph.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "core/base/error.h"

namespace qb {

ValueId LayerGraph::input(std::string name, int64_t width) {
  values_.push_back({0, std::move(name), width, -1, {}});
  return 0;
}

std::vector<ValueId> LayerGraph::add(OperationKind kind, std::vector<ValueId> inputs, const std::vector<std::pair<std::string, int64_t>>& outputs) {
  const int index = static_cast<int>(operations_.size());
  for (ValueId id : inputs) values_.at(static_cast<size_t>(id)).readers.push_back(index);
  if (const auto* linear = std::get_if<LinearOp>(&kind)) {
    if (linear->linear != static_cast<int>(of_linear_.size())) throw InternalError("linears of a layer are added in order");
    of_linear_.push_back(index);
    values_[static_cast<size_t>(inputs.front())].tapped = true;
  }
  Operation operation{std::move(kind), std::move(inputs), {}, {}};
  for (const auto& [name, width] : outputs) {
    const auto id = static_cast<ValueId>(values_.size());
    values_.push_back({id, name, width, index, {}});
    operation.outputs.push_back(id);
  }
  operations_.push_back(std::move(operation));
  return operations_.back().outputs;
}

ValueId LayerGraph::add(OperationKind kind, std::vector<ValueId> inputs, std::string name, int64_t width) {
  return add(std::move(kind), std::move(inputs), {{std::move(name), width}}).front();
}

void LayerGraph::finish(ValueId output) {
  output_ = output;
  for (const Operation& operation : operations_) {
    const auto* attention = std::get_if<AttentionOp>(&operation.kind);
    if (!attention) continue;
    const Operation *keys = producer(operation.inputs[1]), *values = producer(operation.inputs[2]);
    const bool handed_on = !keys || !values || std::holds_alternative<SplitOp>(keys->kind), latent = keys && std::holds_alternative<JoinOp>(keys->kind);
    if (handed_on || latent) continue;
    for (const auto& [input, part] : {std::pair{size_t{1}, CachePart::keys}, {size_t{2}, CachePart::values}}) {
      GraphValue& value = values_[static_cast<size_t>(operation.inputs[input])];
      value.cache = part;
      value.cache_heads = attention->kv_heads;
    }
  }
  for (size_t o = 0; o < operations_.size(); ++o) {
    Operation& operation = operations_[o];
    operation.last_use.clear();
    for (size_t i = 0; i < operation.inputs.size(); ++i) {
      const ValueId id = operation.inputs[i];
      const bool again = std::find(operation.inputs.begin() + static_cast<std::ptrdiff_t>(i) + 1, operation.inputs.end(), id) != operation.inputs.end();
      operation.last_use.push_back(!again && id != output && value(id).readers.back() == static_cast<int>(o));
    }
  }
  for (auto operation = operations_.rbegin(); operation != operations_.rend(); ++operation)
    for (ValueId id : operation->outputs) {
      const GraphValue& made = value(id);
      operation->before_tap = operation->before_tap || made.tapped || std::any_of(made.readers.begin(), made.readers.end(), [&](int r) { return operations_[static_cast<size_t>(r)].before_tap; });
    }
}

const Operation* LayerGraph::producer(ValueId id) const {
  const int index = value(id).producer;
  return index < 0 ? nullptr : &operations_[static_cast<size_t>(index)];
}

const Operation& LayerGraph::linear(int index) const { return operations_[static_cast<size_t>(of_linear_.at(static_cast<size_t>(index)))]; }

namespace {

void add_readers(const LayerGraph& graph, ValueId id, ChannelReaders& all) {
  const GraphValue& value = graph.value(id);
  if (value.hadamard || id == graph.output()) all.complete = false;  // a transform mixes the channels before they are read
  bool linears = false;
  for (int reader : value.readers) {
    const Operation& operation = graph.operations()[static_cast<size_t>(reader)];
    if (const auto* linear = std::get_if<LinearOp>(&operation.kind)) {
      all.linears.push_back(linear->linear);
      linears = true;
    } else if (const auto* router = std::get_if<RouterOp>(&operation.kind)) {
      all.routers.push_back(router->tensor);
    } else if (const auto* share = std::get_if<ShareOp>(&operation.kind); share && operation.inputs[1] == id) {
      all.routers.push_back(share->tensor);
    } else if (std::holds_alternative<DispatchOp>(operation.kind)) {
      add_readers(graph, operation.outputs.front(), all);
    } else if (!std::holds_alternative<ZeroOp>(operation.kind)) {  // zeros are zeros whatever the factor
      all.complete = false;
    }
  }
  if (linears) all.values.push_back(id);
}

// The only thing that reads a value, and unchanged.
bool passes(const LayerGraph& graph, ValueId id) { return graph.value(id).readers.size() == 1 && !graph.value(id).hadamard; }

}  // namespace

ChannelReaders channel_readers(const LayerGraph& graph, ValueId id) {
  ChannelReaders all;
  add_readers(graph, id, all);
  return all;
}

std::optional<ValueId> token_choice(const LayerGraph& graph, ValueId id) {
  while (const Operation* made = graph.producer(id)) {
    if (std::holds_alternative<DispatchOp>(made->kind)) return made->outputs.back();
    id = made->inputs.front();
  }
  return std::nullopt;
}

ChannelSource channel_source(const LayerGraph& graph, ValueId id) {
  if (graph.value(id).hadamard) return {};
  ChannelSource source;
  std::vector<int64_t>& channels = source.rows;
  channels.resize(static_cast<size_t>(graph.value(id).width));
  std::iota(channels.begin(), channels.end(), 0);
  for (;;) {
    const Operation* made = graph.producer(id);
    if (!made) return {};
    if (const auto* linear = std::get_if<LinearOp>(&made->kind)) {
      const auto output = static_cast<size_t>(std::find(made->outputs.begin(), made->outputs.end(), id) - made->outputs.begin());
      for (int64_t& channel : channels) channel = linear->outputs[output].of(channel);
      source.linear = linear->linear;
      return source;
    }
    if (const auto* norm = std::get_if<NormOp>(&made->kind)) {
      if (norm->tensor.empty() || norm->own_tensors) return {};
      if (norm->heads > 0)  // one weight for all heads
        for (int64_t& channel : channels) channel %= graph.value(id).width / norm->heads;
      source.norm = norm;
      return source;
    }
    ValueId from = -1;
    if (const auto* attention = std::get_if<AttentionOp>(&made->kind)) {
      from = made->inputs[2];
      const int64_t dim = graph.value(from).width / attention->kv_heads, group = attention->heads / attention->kv_heads;
      for (int64_t& channel : channels) channel = channel / dim / group * dim + channel % dim;
    } else if (const auto* gated = std::get_if<GatedOp>(&made->kind)) {
      if (gated->kind != Activation::clamped_swiglu) from = made->inputs[1];
    } else if (std::holds_alternative<SigmoidGateOp>(made->kind) || std::holds_alternative<MultiplyOp>(made->kind)) {
      from = made->inputs[0];
    } else if (const auto* activation = std::get_if<ActivationOp>(&made->kind)) {
      if (activation->kind == Activation::relu || activation->kind == Activation::relu_squared) from = made->inputs[0];  // factors are positive
      if (activation->kind == Activation::relu_squared) source.power *= 2;
    }
    if (from < 0 || !passes(graph, from)) return {};
    id = from;
  }
}

namespace {

// The linears whose outputs make up what a branch adds to the stream.
void add_writers(const LayerGraph& graph, ValueId id, ResidualStream& stream) {
  const Operation* made = graph.producer(id);
  if (!made) throw InternalError("a layer's input is no branch of it");
  if (const auto* linear = std::get_if<LinearOp>(&made->kind)) {
    if (std::find(stream.writers.begin(), stream.writers.end(), linear->linear) == stream.writers.end()) stream.writers.push_back(linear->linear);
  } else if (std::holds_alternative<AddOp>(made->kind) || std::holds_alternative<CombineOp>(made->kind)) {
    add_writers(graph, made->inputs[0], stream);
    add_writers(graph, made->inputs[1], stream);
  } else if (std::holds_alternative<ShareOp>(made->kind)) {
    add_writers(graph, made->inputs[0], stream);
  } else if (std::holds_alternative<NormOp>(made->kind)) {
    stream.obstacle = "norms of a block's outputs do not commute with a rotation";
  } else if (!std::holds_alternative<ZeroOp>(made->kind)) {
    stream.obstacle = "something else than linears adds to the hidden states";
  }
}

}  // namespace

ResidualStream residual_stream(const LayerGraph& graph) {
  ResidualStream stream;
  for (const Operation& operation : graph.operations())
    if (std::holds_alternative<PredictOp>(operation.kind)) {
      stream.obstacle = "norms of a block's outputs do not commute with a rotation";
      return stream;
    }
  std::set<ValueId> values = {0};
  auto flows = [&](ValueId id) { return values.contains(id); };
  for (const Operation& operation : graph.operations()) {
    if (std::none_of(operation.inputs.begin(), operation.inputs.end(), flows)) continue;
    if (std::holds_alternative<AddOp>(operation.kind)) {
      for (ValueId id : operation.inputs)
        if (!flows(id)) add_writers(graph, id, stream);
      values.insert(operation.outputs.front());
    } else if (const auto* norm = std::get_if<NormOp>(&operation.kind)) {
      if (is_layer_norm(norm->kind) || norm->tensor.empty() || norm->heads > 0) stream.obstacle = "rotations need RMS norms with weights";
      ChannelReaders readers = channel_readers(graph, operation.outputs.front());
      if (!readers.complete) stream.obstacle = "norms after the residual addition do not commute with a rotation";
      stream.readers.push_back({norm->tensor, norm->kind, std::move(readers.linears), std::move(readers.routers)});
    } else {
      stream.obstacle = "hidden states are read without a norm";
    }
  }
  if (!flows(graph.output()) && stream.obstacle.empty()) stream.obstacle = "norms after the residual addition do not commute with a rotation";
  return stream;
}

bool is_context(const LayerGraph& graph, ValueId id) {
  const Operation* made = graph.producer(id);
  if (made && std::holds_alternative<SigmoidGateOp>(made->kind)) return is_context(graph, made->inputs[0]);
  return made && std::holds_alternative<AttentionOp>(made->kind);
}

int module_end(const LayerGraph& graph, const std::vector<int>& linears) {
  std::vector<ValueId> front;
  for (int linear : linears) {
    const auto& outputs = graph.linear(linear).outputs;
    front.insert(front.end(), outputs.begin(), outputs.end());
  }
  std::set<ValueId> seen;
  int end = -1;
  while (!front.empty()) {
    const ValueId id = front.back();
    front.pop_back();
    if (!seen.insert(id).second) continue;
    if (id == graph.output()) return -1;
    for (int reader : graph.value(id).readers) {
      const Operation& operation = graph.operations()[static_cast<size_t>(reader)];
      if (const auto* linear = std::get_if<LinearOp>(&operation.kind)) {
        if (end >= 0 && end != linear->linear) return -1;
        end = linear->linear;
      } else {
        front.insert(front.end(), operation.outputs.begin(), operation.outputs.end());
      }
    }
  }
  return end;
}

CachedValues cached_values(const LayerGraph& graph) {
  CachedValues found;
  for (const GraphValue& value : graph.values()) {
    if (value.cache == CachePart::none) continue;
    found.heads = value.cache_heads;
    if (value.cache == CachePart::values) {
      found.values = value.id;
      found.value_dim = value.width / value.cache_heads;
      continue;
    }
    found.keys = value.id;
    found.key_dim = value.width / value.cache_heads;
    const Operation* maker = graph.producer(value.id);
    while (maker && !std::holds_alternative<LinearOp>(maker->kind)) maker = graph.producer(maker->inputs.front());
    if (maker) found.linear = std::get<LinearOp>(maker->kind).linear;
  }
  return found;
}

bool caches_latent(const LayerGraph& graph) {
  return std::any_of(graph.operations().begin(), graph.operations().end(), [&](const Operation& operation) {
    const Operation* keys = std::holds_alternative<AttentionOp>(operation.kind) ? graph.producer(operation.inputs[1]) : nullptr;
    return keys && std::holds_alternative<JoinOp>(keys->kind);
  });
}

bool makes_scores(const LayerGraph& graph, int linear) {
  std::vector<ValueId> front = graph.linear(linear).outputs;
  while (!front.empty()) {
    const ValueId id = front.back();
    front.pop_back();
    for (int reader : graph.value(id).readers) {
      const Operation& operation = graph.operations()[static_cast<size_t>(reader)];
      if (std::holds_alternative<AttentionOp>(operation.kind)) {
        if (operation.inputs[0] == id || operation.inputs[1] == id) return true;
      } else if (!std::holds_alternative<LinearOp>(operation.kind)) {  // norms, rotations, clamps on the way
        front.insert(front.end(), operation.outputs.begin(), operation.outputs.end());
      }
    }
  }
  return false;
}

}  // namespace qb
