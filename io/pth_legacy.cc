#include "millrace/io/pth_legacy.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "millrace/io/pickle_walk.h"
#include "millrace/io/zip_bytes.h"

namespace millrace {
namespace {

using pickle::Value;

constexpr std::string_view kMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

Fault corrupt(std::string where, std::string what) {
  return {Fault::Kind::corrupt, std::move(where), std::move(what)};
}

// The five pickles at the start, read with a window that doubles: only reading tells where they
// end, and the storages after them may be many gigabytes.
class Pickles {
 public:
  Pickles(const StoredObject& object, std::uint64_t limit, const pickle::UnpickleLimits& limits)
      : object_(object), limit_(std::min(limit, object.size())), limits_(limits) {
    grow(std::min<std::uint64_t>(limit_, kFirst));
  }

  std::uint64_t at() const { return at_; }

  Result<Value> next() {
    while (true) {
      std::size_t consumed = 0;
      auto value = pickle::unpickle(std::span(window_).subspan(at_), limits_, &consumed);
      if (value) {
        at_ += consumed;
        return value;
      }
      if (value.fault().kind != Fault::Kind::truncated) return value;
      if (window_.size() == object_.size()) return value;
      if (window_.size() == limit_) {
        return Fault{Fault::Kind::limit, "byte " + std::to_string(at_),
                     "The file's pickles are larger than " + std::to_string(limit_) + " bytes."};
      }
      grow(std::min<std::uint64_t>(limit_, window_.size() * 2));
    }
  }

 private:
  static constexpr std::uint64_t kFirst = 32 * 1024;

  void grow(std::uint64_t size) {
    const std::size_t old = window_.size();
    window_.resize(size);
    object_.read(old, std::span(window_).subspan(old));
  }

  const StoredObject& object_;
  std::uint64_t limit_;
  const pickle::UnpickleLimits& limits_;
  std::vector<std::byte> window_;
  std::size_t at_ = 0;
};

std::optional<Fault> read_preamble(Pickles& pickles) {
  const auto magic = pickles.next();
  if (!magic) return magic.fault();
  const auto* number = std::get_if<pickle::BigInt>(&magic.value().data);
  if (number == nullptr || number->bytes != kMagic) {
    return Fault{Fault::Kind::foreign,
                 {},
                 "The file is a plain Python pickle and was not written by torch.save."};
  }
  const auto version = pickles.next();
  if (!version) return version.fault();
  if (version.value() != Value(1001)) {
    return corrupt("protocol version",
                   "torch's legacy format has version 1001, and this file says " +
                       describe(version.value()) + ".");
  }
  const auto system = pickles.next();
  if (!system) return system.fault();
  const Value* little = system.value().find("little_endian");
  if (little == nullptr || !little->as_bool()) {
    return corrupt("system information", "The file does not say its byte order.");
  }
  if (!*little->as_bool()) {
    return Fault{
        Fault::Kind::foreign, "system information",
        "The file was written on a big-endian machine; only little-endian files are read."};
  }
  return std::nullopt;
}

// Cuts persistent ids to the five parts that zip files have. Gives each storage's byte size.
Result<std::unordered_map<std::string, std::uint64_t>> normalize(const Value& root) {
  std::unordered_map<std::string, std::uint64_t> sizes;
  std::optional<Fault> fault;
  pickle::walk(root, [&](const Value& value) {
    const auto* id = std::get_if<std::shared_ptr<pickle::PersistentId>>(&value.data);
    if (id == nullptr || fault) return;
    const auto storage = pickle::as_storage(value);
    const std::uint64_t element = storage ? storage_element_size(storage->storage_class) : 0;
    std::uint64_t size = 0;
    if (element == 0 ||
        __builtin_mul_overflow(static_cast<std::uint64_t>(storage->numel), element, &size)) {
      fault = corrupt(describe(value, 80), "A storage is described in a way that is not known.");
      return;
    }
    if (sizes.emplace(storage->key, size).first->second != size) {
      fault = corrupt("storage " + storage->key, "A storage is described with two sizes.");
      return;
    }
    std::vector<Value> parts = *(*id)->id.as_sequence();
    parts.resize(5);
    (*id)->id = Value::tuple(std::move(parts));
  });
  if (fault) return *std::move(fault);
  return sizes;
}

}  // namespace

std::uint64_t storage_element_size(const std::string& storage_class) {
  if (storage_class == "UntypedStorage") return 1;
  const auto dtype = dtype_of_storage_class(storage_class);
  return dtype ? dtype_size(*dtype) : 0;
}

bool maybe_legacy(std::span<const std::byte> head) {
  return head.size() >= 2 && head[0] == std::byte{0x80} && head[1] <= std::byte{5};
}

Result<LegacyFile> read_legacy(const StoredObject& object, std::uint64_t max_pickle_bytes,
                               const pickle::UnpickleLimits& limits) {
  Pickles pickles(object, max_pickle_bytes, limits);
  if (auto fault = read_preamble(pickles)) return *std::move(fault);
  auto root = pickles.next();
  if (!root) return root.fault();
  const auto sizes = normalize(root.value());
  if (!sizes) return sizes.fault();
  const auto keys = pickles.next();
  if (!keys) return keys.fault();
  LegacyFile file{std::move(root.value()), {}};
  std::uint64_t at = pickles.at();
  const auto* listed = keys.value().as_sequence();
  if (listed == nullptr) return corrupt("storage keys", "The list of storages is no list.");
  std::unordered_set<std::string> seen;
  for (const Value& key : *listed) {
    const std::string* name = key.as_string();
    const auto size = name != nullptr ? sizes.value().find(*name) : sizes.value().end();
    if (size == sizes.value().end() || !seen.insert(*name).second) {
      return corrupt("storage keys",
                     "The list of storages names one twice, or one that no tensor uses.");
    }
    if (object.size() - at < 8 || size->second > object.size() - at - 8) {
      return Fault{Fault::Kind::truncated, "storage " + *name,
                   "The file ends inside a storage: it was cut short."};
    }
    file.storages.push_back({*name, at + 8, size->second});
    at += 8 + size->second;
  }
  if (seen.size() != sizes.value().size()) {
    return corrupt("storage keys", "A tensor's storage is not in the list of storages.");
  }
  if (at != object.size())
    return corrupt("byte " + std::to_string(at), "Bytes follow the last storage.");
  return file;
}

}  // namespace millrace
