#include "core/format/torch_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/utf8.h"

// Why not libtorch's own unpickler: it takes the number of elements that a pickle claims for a storage's size, does not know the
// attributes that a state_dict carries, and copies every storage into memory.
namespace qb {
namespace {

enum class Kind { none, boolean, integer, real, text, bytes, list, tuple, dict, name, storage, tensor };

struct Value {
  Kind kind = Kind::none;
  int64_t number = 0;              // of an integer, a truth value
  std::string text;                // of a text or a name ("torch FloatStorage")
  std::vector<Value*> items;       // of a list or tuple; of a dictionary key, value, key, value …
  std::optional<DType> dtype;      // of a storage; none: bytes of no type
  std::unique_ptr<PickledTensor> tensor;  // of a tensor; of a storage, where it lies
};

constexpr size_t kPickleLimit = size_t{1} << 26;  // a hundred thousand tensors take a fifth of it

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::none: return "None";
    case Kind::boolean: return "a truth value";
    case Kind::integer: return "an integer";
    case Kind::real: return "a number";
    case Kind::text: return "a text";
    case Kind::bytes: return "bytes";
    case Kind::list: return "a list";
    case Kind::tuple: return "a tuple";
    case Kind::dict: return "a dictionary";
    case Kind::name: return "a class or function";
    case Kind::storage: return "a storage";
    case Kind::tensor: return "a tensor";
  }
  return "";
}

std::optional<DType> storage_type(const std::string& name) {
  static const std::unordered_map<std::string, DType> types = {
      {"DoubleStorage", DType::f64}, {"FloatStorage", DType::f32}, {"HalfStorage", DType::f16}, {"BFloat16Storage", DType::bf16}, {"LongStorage", DType::i64},
      {"IntStorage", DType::i32},    {"ShortStorage", DType::i16}, {"CharStorage", DType::i8},  {"ByteStorage", DType::u8},       {"BoolStorage", DType::boolean},
      {"ComplexFloatStorage", DType::c64}};
  const auto it = types.find(name);
  return it == types.end() ? std::nullopt : std::optional(it->second);
}

std::optional<DType> element_type(const std::string& name) {
  static const std::unordered_map<std::string, DType> types = {
      {"float64", DType::f64}, {"float32", DType::f32}, {"float16", DType::f16}, {"bfloat16", DType::bf16}, {"int64", DType::i64}, {"int32", DType::i32}, {"int16", DType::i16},
      {"int8", DType::i8}, {"uint8", DType::u8}, {"bool", DType::boolean}, {"uint64", DType::u64}, {"uint32", DType::u32}, {"uint16", DType::u16}, {"complex64", DType::c64},
      {"float8_e4m3fn", DType::f8_e4m3}, {"float8_e5m2", DType::f8_e5m2}, {"float8_e8m0fnu", DType::f8_e8m0}, {"float8_e4m3fnuz", DType::f8_e4m3fnuz},
      {"float8_e5m2fnuz", DType::f8_e5m2fnuz}};
  const auto it = types.find(name);
  return it == types.end() ? std::nullopt : std::optional(it->second);
}

class Machine {
 public:
  Machine(std::span<const std::byte> pickle, const std::string& file) : pickle_(pickle), file_(file) {}

  std::vector<PickledTensor> run() {
    if (pickle_.size() > kPickleLimit) throw damaged(fmt::format("{} bytes, expected at most {}", pickle_.size(), kPickleLimit));
    if (byte() != 0x80) throw damaged("it does not begin as one");
    if (const int protocol = byte(); protocol < 2 || protocol > 5) throw damaged(fmt::format("protocol {}, expected 2 to 5", protocol));
    while (step(byte())) {}
    if (stack_.size() != 1 || !marks_.empty() || at_ != pickle_.size()) throw damaged("it goes on behind its end");
    const Value& top = *stack_.front();
    if (top.kind != Kind::dict) throw InputError(fmt::format("{}: holds {}, expected a dictionary of tensors", file_, name_of(top.kind)));
    std::vector<PickledTensor> tensors;
    for (size_t i = 0; i < top.items.size(); i += 2) {
      const Value &key = *top.items[i], &value = *top.items[i + 1];
      if (key.kind != Kind::text) throw InputError(fmt::format("{}: its dictionary has {} as a key, expected names of tensors", file_, name_of(key.kind)));
      if (value.kind != Kind::tensor)
        throw InputError(fmt::format("{}: {} is {}, expected a tensor{}", file_, qb::quoted(key.text), name_of(value.kind),
                                     value.kind == Kind::dict ? ": a training checkpoint? Save its model's state_dict alone" : ""));
      tensors.push_back(*value.tensor);
      tensors.back().name = key.text;
    }
    return tensors;
  }

 private:
  InputError damaged(const std::string& what) const { return InputError(fmt::format("{}: its pickle is damaged: {} (at byte {})", file_, what, at_)); }
  InputError refused(const std::string& what) const { return InputError(fmt::format("{}: its pickle {} (at byte {}); only what makes tensors is read, and nothing is run", file_, what, at_)); }

  int byte() { return static_cast<int>(take(1)[0]); }
  std::span<const std::byte> take(uint64_t n) {
    if (n > pickle_.size() - at_) throw damaged("it ends too early");
    const auto bytes = pickle_.subspan(at_, n);
    at_ += n;
    return bytes;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string text(uint64_t n) {
    const auto bytes = take(n);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string line() {
    const auto rest = pickle_.subspan(at_);
    const void* end = rest.empty() ? nullptr : std::memchr(rest.data(), '\n', rest.size());
    if (!end) throw damaged("a name does not end");
    std::string found = text(static_cast<uint64_t>(static_cast<const std::byte*>(end) - rest.data()));
    ++at_;
    return found;
  }

  Value* made(Kind kind) {
    values_.emplace_back().kind = kind;
    return &values_.back();
  }
  void push(Value* value) { stack_.push_back(value); }
  void push_number(Kind kind, int64_t value) {
    push(made(kind));
    stack_.back()->number = value;
  }
  void push_text(std::string value) {
    push(made(Kind::text));
    stack_.back()->text = std::move(value);
  }
  // A mark hides what is below it.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value* pop() {
    if (stack_.size() <= floor()) throw damaged("it takes more than there is");
    Value* value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Value& top() {
    if (stack_.size() <= floor()) throw damaged("it takes more than there is");
    return *stack_.back();
  }
  std::vector<Value*> pop_to_mark() {
    if (marks_.empty()) throw damaged("a mark is missing");
    const auto from = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
    std::vector<Value*> items(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::vector<Value*> items) {
    push(made(Kind::tuple));
    stack_.back()->items = std::move(items);
  }
  void push_last(size_t count) {
    std::vector<Value*> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }
  void append(const std::vector<Value*>& items, Kind kind) {
    Value& to = top();
    if (to.kind != kind || (kind == Kind::dict && items.size() % 2 != 0)) throw damaged(fmt::format("it adds to {}", name_of(to.kind)));
    to.items.insert(to.items.end(), items.begin(), items.end());
  }
  void remember(uint64_t index) { memo_[index] = &top(); }
  void recall(uint64_t index) {
    const auto it = memo_.find(index);
    if (it == memo_.end()) throw damaged(fmt::format("it recalls value {}, which it does not have", index));
    push(it->second);
  }

  bool step(int code) {
    switch (code) {
      case '.': return false;
      case '(': marks_.push_back(stack_.size()); break;
      case 0x95: number<uint64_t>(); break;  // the length of a frame
      case '}': push(made(Kind::dict)); break;
      case ']': push(made(Kind::list)); break;
      case ')': push(made(Kind::tuple)); break;
      case 't': push_tuple(pop_to_mark()); break;
      case 0x85: push_last(1); break;
      case 0x86: push_last(2); break;
      case 0x87: push_last(3); break;
      case 'N': push(made(Kind::none)); break;
      case 0x88: push_number(Kind::boolean, 1); break;
      case 0x89: push_number(Kind::boolean, 0); break;
      case 'K': push_number(Kind::integer, byte()); break;
      case 'M': push_number(Kind::integer, number<uint16_t>()); break;
      case 'J': push_number(Kind::integer, number<int32_t>()); break;
      case 0x8a: push_long(static_cast<uint64_t>(byte())); break;
      case 0x8b: push_long(number<uint32_t>()); break;
      case 'G': number<uint64_t>(), push(made(Kind::real)); break;
      case 'X': push_text(text(number<uint32_t>())); break;
      case 0x8c: push_text(text(static_cast<uint64_t>(byte()))); break;
      case 0x8d: push_text(text(number<uint64_t>())); break;
      case 'B': take(number<uint32_t>()), push(made(Kind::bytes)); break;
      case 'C': take(static_cast<uint64_t>(byte())), push(made(Kind::bytes)); break;
      case 'q': remember(static_cast<uint64_t>(byte())); break;
      case 'r': remember(number<uint32_t>()); break;
      case 0x94: remember(memo_.size()); break;
      case 'h': recall(static_cast<uint64_t>(byte())); break;
      case 'j': recall(number<uint32_t>()); break;
      case 'a': {
        Value* item = pop();
        append({item}, Kind::list);
        break;
      }
      case 'e': append(pop_to_mark(), Kind::list); break;
      case 's': {
        Value *value = pop(), *key = pop();
        append({key, value}, Kind::dict);
        break;
      }
      case 'u': append(pop_to_mark(), Kind::dict); break;
      case 'c': {
        const std::string module = line();
        push_name(module, line());
        break;
      }
      case 0x93: {
        const Value &name = *pop(), &module = *pop();
        if (name.kind != Kind::text || module.kind != Kind::text) throw damaged("a name is no text");
        push_name(module.text, name.text);
        break;
      }
      case 'Q': push(storage_of(*pop())); break;
      case 'R': {
        const Value& arguments = *pop();
        push(call(*pop(), arguments));
        break;
      }
      case 'b': {
        // Attributes of a state_dict or a parameter, which no tensor depends on.
        const Value& state = *pop();
        if (top().kind != Kind::dict || state.kind != Kind::dict) throw refused(fmt::format("sets the state of {}", name_of(top().kind)));
        break;
      }
      default: throw refused(fmt::format("has opcode {:#04x}", code));
    }
    return true;
  }

  void push_long(uint64_t bytes) {
    if (bytes > 8) throw damaged(fmt::format("a number of {} bytes", bytes));
    const auto found = take(bytes);
    uint64_t value = bytes > 0 && (static_cast<int>(found.back()) & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<uint64_t>(found[i]);
    push_number(Kind::integer, static_cast<int64_t>(value));
  }

  void push_name(const std::string& module, const std::string& name) {
    static constexpr std::string_view known[] = {
        "collections OrderedDict", "torch Size", "torch Tensor", "torch.nn.parameter Parameter", "torch UntypedStorage", "torch.storage UntypedStorage",
        "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state", "torch._tensor _rebuild_from_type_v2"};
    const std::string whole = module + " " + name;
    const bool type = module == "torch" && (storage_type(name) || element_type(name));
    if (!type && std::find(std::begin(known), std::end(known), whole) == std::end(known)) throw refused(fmt::format("asks for {}", qb::quoted(module + "." + name)));
    push(made(Kind::name));
    stack_.back()->text = whole;
  }

  const Value& item(const Value& of, size_t index, Kind kind, const char* what) const {
    if (of.kind != Kind::tuple || index >= of.items.size() || of.items[index]->kind != kind) throw damaged(fmt::format("{} is not {}", what, name_of(kind)));
    return *of.items[index];
  }
  uint64_t size(const Value& value, const char* what) const {
    if (value.kind != Kind::integer || value.number < 0) throw damaged(fmt::format("{} is no size", what));
    return static_cast<uint64_t>(value.number);
  }

  // ("storage", its type, its key, the device, its number of elements)
  Value* storage_of(const Value& id) {
    if (item(id, 0, Kind::text, "what a persistent id is of").text != "storage" || id.items.size() != 5) throw damaged("a persistent id is no storage's");
    const std::string type = item(id, 1, Kind::name, "a storage's type").text;
    Value* value = made(Kind::storage);
    value->tensor = std::make_unique<PickledTensor>();
    value->tensor->storage = item(id, 2, Kind::text, "a storage's key").text;
    const uint64_t count = size(*id.items[4], "a storage's length");
    if (type == "torch.storage UntypedStorage" || type == "torch UntypedStorage") {
      value->tensor->storage_bytes = count;
      return value;
    }
    value->dtype = type.starts_with("torch ") ? storage_type(type.substr(6)) : std::nullopt;
    if (!value->dtype) throw damaged(fmt::format("{} is no type of storages", qb::quoted(type)));
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(block_bytes(*value->dtype)), &value->tensor->storage_bytes)) throw damaged("a storage too large to address");
    return value;
  }

  Value* call(const Value& function, const Value& arguments) {
    if (function.kind != Kind::name || arguments.kind != Kind::tuple) throw refused(fmt::format("calls {}", name_of(function.kind)));
    const std::string& name = function.text;
    if (name == "collections OrderedDict") {
      if (!arguments.items.empty()) throw refused("makes an OrderedDict of something");
      return made(Kind::dict);
    }
    if (name == "torch Size" && arguments.items.size() == 1 && arguments.items[0]->kind == Kind::tuple) return arguments.items[0];
    if (name.starts_with("torch._utils _rebuild_tensor_v")) return tensor_of(arguments, name.back() == '3');
    if (name.starts_with("torch._utils _rebuild_parameter")) {
      item(arguments, 0, Kind::tensor, "what a parameter is made of");
      return arguments.items[0];
    }
    if (name == "torch._tensor _rebuild_from_type_v2") {
      const std::string& type = item(arguments, 1, Kind::name, "a tensor's class").text;
      if (type != "torch Tensor" && type != "torch.nn.parameter Parameter") throw refused(fmt::format("makes {}", qb::quoted(type)));
      const Value& inner = item(arguments, 0, Kind::name, "what makes a tensor");
      if (!inner.text.starts_with("torch._utils _rebuild_")) throw refused(fmt::format("calls {}", qb::quoted(inner.text)));
      return call(inner, item(arguments, 2, Kind::tuple, "what a tensor is made of"));
    }
    throw refused(fmt::format("calls {}", qb::quoted(name)));
  }

  // (storage, first element, shape, stride, requires_grad, hooks[, type][, metadata])
  Value* tensor_of(const Value& arguments, bool typed) {
    const Value& storage = item(arguments, 0, Kind::storage, "a tensor's storage");
    Value* value = made(Kind::tensor);
    value->tensor = std::make_unique<PickledTensor>();
    PickledTensor& tensor = *value->tensor;
    tensor.storage = storage.tensor->storage;
    tensor.storage_bytes = storage.tensor->storage_bytes;
    if (arguments.items.size() < (typed ? 7 : 6)) throw damaged("a tensor is made of too little");
    if (typed) {
      const std::string& type = item(arguments, 6, Kind::name, "a tensor's type").text;
      const auto found = type.starts_with("torch ") ? element_type(type.substr(6)) : std::nullopt;
      if (!found) throw damaged(fmt::format("{} is no type of tensors", qb::quoted(type)));
      tensor.dtype = *found;
    } else if (storage.dtype) {
      tensor.dtype = *storage.dtype;
    } else {
      throw damaged("a tensor has no type");
    }
    if (const size_t at = typed ? 7 : 6; arguments.items.size() > at) {
      const Value& metadata = *arguments.items[at];
      if (metadata.kind != Kind::none && !(metadata.kind == Kind::dict && metadata.items.empty())) throw refused("has a tensor that is conjugated, negated or the like");
    }
    tensor.first = size(*arguments.items[1], "a tensor's first element");
    const Value &shape = item(arguments, 2, Kind::tuple, "a tensor's shape"), &stride = item(arguments, 3, Kind::tuple, "a tensor's stride");
    if (shape.items.size() != stride.items.size() || shape.items.size() > 64) throw damaged(fmt::format("a tensor of {} sizes and {} strides", shape.items.size(), stride.items.size()));
    uint64_t last = 0;
    bool empty = false;
    for (size_t d = 0; d < shape.items.size(); ++d) {
      const uint64_t count = size(*shape.items[d], "a tensor's size"), step = size(*stride.items[d], "a tensor's stride");
      tensor.shape.push_back(static_cast<int64_t>(count));
      tensor.stride.push_back(static_cast<int64_t>(step));
      empty = empty || count == 0;
      uint64_t reach = 0;
      if (count > 0 && (__builtin_mul_overflow(count - 1, step, &reach) || __builtin_add_overflow(last, reach, &last))) throw damaged("a tensor too large to address");
    }
    const uint64_t elements = storage.tensor->storage_bytes / static_cast<uint64_t>(block_bytes(tensor.dtype));
    const auto count = element_count(tensor.shape);
    if (!count) throw damaged("a tensor too large to address");
    if (empty) {
      tensor.first = 0;
      return value;
    }
    if (tensor.first > elements || last >= elements - tensor.first) throw damaged(fmt::format("a tensor reaches element {} of a storage of {}", tensor.first + last, elements));
    tensor.span = last + 1;
    if (static_cast<uint64_t>(*count) > tensor.span) throw InputError(fmt::format("{}: a tensor of {} values shows {} values of its storage repeatedly, expected each once", file_, *count, tensor.span));
    return value;
  }

  std::span<const std::byte> pickle_;
  const std::string& file_;
  uint64_t at_ = 0;
  std::deque<Value> values_;  // every one that there ever was: a memory may hold it
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Value*> memo_;
};

}  // namespace

std::vector<PickledTensor> parse_torch_pickle(std::span<const std::byte> pickle, const std::string& file) { return Machine(pickle, file).run(); }

}  // namespace qb
