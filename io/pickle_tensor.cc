// Tensor leaves. The forms torch.save has used for them:
//
//   torch._utils._rebuild_tensor(storage, offset, size, stride)
//   torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[,
//   metadata]) torch._utils._rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks,
//   dtype, ...) torch._utils._rebuild_parameter(tensor, requires_grad, hooks)            also
//   _with_state torch._tensor._rebuild_from_type_v2(rebuilder, class, args, state)       also
//   without _v2
#include <array>
#include <limits>

#include "millrace/io/pickle_walk.h"

namespace millrace::pickle {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

const std::vector<Value>* tuple_items(const Value& value) {
  const auto* tuple = std::get_if<std::shared_ptr<Tuple>>(&value.data);
  return tuple != nullptr ? &(*tuple)->items : nullptr;
}

// The function of torch a call names, without its module; empty for any other.
std::string_view torch_function(const Value& function) {
  const auto* global = std::get_if<Global>(&function.data);
  if (global == nullptr) return {};
  if (global->module != "torch._utils" && global->module != "torch._tensor") return {};
  return global->name;
}

std::optional<std::vector<std::int64_t>> counts(const Value& value) {
  // torch.Size((2, 3)) is a call around the tuple.
  const auto* call = std::get_if<std::shared_ptr<Call>>(&value.data);
  const auto* args = call != nullptr ? tuple_items((*call)->args) : nullptr;
  const Value& plain = args != nullptr && args->size() == 1 ? args->front() : value;
  const auto* items = plain.as_sequence();
  if (items == nullptr) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const Value& item : *items) {
    const auto number = item.as_int();
    if (!number || *number < 0) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

// Whether sizes, strides and offset stay inside the storage, with no step that overflows.
bool fits(const TensorRef& tensor) {
  if (tensor.sizes.size() != tensor.strides.size()) return false;
  if (tensor.offset < 0 || tensor.storage_numel < 0) return false;
  std::int64_t elements = 1, last = tensor.offset;
  bool empty = false;
  for (const std::int64_t size : tensor.sizes) empty = empty || size == 0;
  for (std::size_t i = 0; i < tensor.sizes.size() && !empty; ++i) {
    const std::int64_t size = tensor.sizes[i];
    if (__builtin_mul_overflow(elements, size, &elements)) return false;
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(size - 1, tensor.strides[i], &reach)) return false;
    if (__builtin_add_overflow(last, reach, &last)) return false;
  }
  if (empty) return true;
  if (elements > kMax / static_cast<std::int64_t>(dtype_size(tensor.dtype))) return false;
  return last < tensor.storage_numel;
}

std::optional<DType> dtype_of_global(const Value& value) {
  const auto* global = std::get_if<Global>(&value.data);
  if (global == nullptr || global->module != "torch") return std::nullopt;
  for (int i = 0; i <= static_cast<int>(DType::kComplex128); ++i) {
    if (dtype_name(static_cast<DType>(i)) == global->name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<TensorRef> plain_tensor(std::string_view name, const std::vector<Value>& args) {
  const bool v3 = name == "_rebuild_tensor_v3";
  if (!v3 && name != "_rebuild_tensor_v2" && name != "_rebuild_tensor") return std::nullopt;
  const std::size_t least = v3 ? 7 : name == "_rebuild_tensor_v2" ? 6 : 4;
  if (args.size() < least) return std::nullopt;
  const auto storage = as_storage(args[0]);
  if (!storage) return std::nullopt;
  const std::optional<DType> dtype = v3 ? dtype_of_global(args[6]) : storage->dtype;
  const auto offset = args[1].as_int();
  auto sizes = counts(args[2]), strides = counts(args[3]);
  if (!dtype || !offset || !sizes || !strides) return std::nullopt;
  if (storage->dtype && storage->dtype != dtype) return std::nullopt;
  TensorRef tensor{storage->key,
                   *dtype,
                   storage->numel,
                   *offset,
                   std::move(*sizes),
                   std::move(*strides),
                   args.size() > 4 && args[4].as_bool().value_or(false)};
  if (!storage->dtype) tensor.storage_numel /= static_cast<std::int64_t>(dtype_size(*dtype));
  if (!fits(tensor)) return std::nullopt;
  return tensor;
}

}  // namespace

std::int64_t TensorRef::numel() const {
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) {
    if (size == 0) return 0;
    if (__builtin_mul_overflow(elements, size, &elements)) elements = kMax;
  }
  return elements;
}

std::optional<StorageRef> as_storage(const Value& value) {
  const auto* id = std::get_if<std::shared_ptr<PersistentId>>(&value.data);
  const auto* parts = id != nullptr ? tuple_items((*id)->id) : nullptr;
  if (parts == nullptr || parts->size() < 5 || parts->size() > 6) return std::nullopt;
  const std::string* tag = (*parts)[0].as_string();
  const auto* storage_class = std::get_if<Global>(&(*parts)[1].data);
  const std::string* key = (*parts)[2].as_string();
  const auto numel = (*parts)[4].as_int();
  // A sixth part is the legacy view (key, offset, size), which torch stopped writing in 0.4.
  if (parts->size() == 6 && !(*parts)[5].is_none()) return std::nullopt;
  if (tag == nullptr || *tag != "storage" || storage_class == nullptr || key == nullptr) {
    return std::nullopt;
  }
  if (!numel || *numel < 0) return std::nullopt;
  return StorageRef{*key, storage_class->name, *numel, dtype_of_storage_class(storage_class->name)};
}

std::vector<std::string> storage_order(const Value& root) {
  std::vector<std::string> keys;
  std::unordered_set<std::string> seen;
  walk(root, [&](const Value& value) {
    const auto storage = as_storage(value);
    if (storage && seen.insert(storage->key).second) keys.push_back(storage->key);
  });
  return keys;
}

bool claims_tensor(const Value& value) {
  const auto* call = std::get_if<std::shared_ptr<Call>>(&value.data);
  return call != nullptr && torch_function((*call)->function).starts_with("_rebuild_tensor");
}

Value make_tensor(const TensorRef& tensor) {
  const auto numbers = [](const std::vector<std::int64_t>& values) {
    return Value::tuple(std::vector<Value>(values.begin(), values.end()));
  };
  const Value storage_class{
      Value::Data(Global{"torch", std::string(dtype_storage_class(tensor.dtype))})};
  auto id = std::make_shared<PersistentId>();
  id->id =
      Value::tuple({"storage", storage_class, tensor.storage_key, "cpu", tensor.storage_numel});
  auto call = std::make_shared<Call>();
  call->function = Value(Value::Data(Global{"torch._utils", "_rebuild_tensor_v2"}));
  call->args =
      Value::tuple({Value(Value::Data(std::move(id))), tensor.offset, numbers(tensor.sizes),
                    numbers(tensor.strides), tensor.requires_grad, Value::ordered_dict()});
  return Value(Value::Data(std::move(call)));
}

std::optional<TensorRef> as_tensor(const Value& value) {
  const Value* current = &value;
  std::optional<bool> requires_grad;
  // A wrapper inside a wrapper is legal; the bound only ends a cycle.
  for (int level = 0; level < 16; ++level) {
    const auto* call = std::get_if<std::shared_ptr<Call>>(&current->data);
    const auto* args = call != nullptr ? tuple_items((*call)->args) : nullptr;
    if (args == nullptr) return std::nullopt;
    std::string_view name = torch_function((*call)->function);
    if (name.starts_with("_rebuild_parameter")) {
      if (args->size() < 2) return std::nullopt;
      if (!requires_grad) requires_grad = (*args)[1].as_bool();
      current = &args->front();
      continue;
    }
    if (name.starts_with("_rebuild_from_type")) {
      if (args->size() != 4) return std::nullopt;
      name = torch_function((*args)[0]);
      args = tuple_items((*args)[2]);
      if (args == nullptr) return std::nullopt;
      if (name.starts_with("_rebuild_parameter")) {
        if (args->size() < 2) return std::nullopt;
        if (!requires_grad) requires_grad = (*args)[1].as_bool();
        current = &args->front();
        continue;
      }
    }
    auto tensor = plain_tensor(name, *args);
    if (tensor && requires_grad) tensor->requires_grad = *requires_grad;
    return tensor;
  }
  return std::nullopt;
}

const void* node_of(const Value& value) {
  return std::visit(
      [](const auto& held) -> const void* {
        if constexpr (requires { held.get(); }) {
          return held.get();
        } else {
          return nullptr;
        }
      },
      value.data);
}

}  // namespace millrace::pickle
