#include "millrace/io/pth_contents.h"

#include <span>
#include <utility>

#include "millrace/io/pickle_walk.h"
#include "millrace/io/pth_legacy.h"

namespace millrace {
namespace {

// A compressed entry that is read into memory as a whole may expand this much, or to a MiB.
constexpr std::uint64_t kMaxExpansion = 200;

}  // namespace

const ZipEntry* PthContents::find(std::string_view name) const {
  return zip ? zip->find(prefix + std::string(name)) : nullptr;
}

const StoragePlace* PthContents::storage(std::string_view key) const {
  const auto found = storages.find(std::string(key));
  return found != storages.end() ? &found->second : nullptr;
}

void PthContents::add_storage(std::string key, StoragePlace place) {
  keys.push_back(key);
  storages.emplace(std::move(key), place);
}

Result<std::vector<std::byte>> PthContents::read_whole(const ZipEntry& entry) const {
  const bool bomb = entry.deflated && entry.size > (std::uint64_t{1} << 20) &&
                    entry.size / kMaxExpansion > entry.stored_size;
  if (entry.size > limits.max_pickle_bytes || bomb) {
    return Fault{Fault::Kind::limit, entry.name,
                 "The entry would take " + std::to_string(entry.size) +
                     " bytes of memory, which is beyond the limit."};
  }
  std::vector<std::byte> bytes;
  if (!entry.deflated) bytes.reserve(entry.size);
  const auto done = read_entry(*object, entry, has_crc(entry), [&](std::size_t size) {
    bytes.resize(bytes.size() + size);
    return std::span(bytes).last(size);
  });
  if (!done) return done.fault();
  return bytes;
}

std::optional<Fault> PthContents::check_storage(const pickle::Value& id) const {
  const auto named = pickle::as_storage(id);
  if (!named) {
    return Fault{Fault::Kind::corrupt, describe(id, 80),
                 "A tensor's storage is described in a way that is not known."};
  }
  const StoragePlace* place = storage(named->key);
  if (place == nullptr) {
    return Fault{Fault::Kind::corrupt, "storage " + named->key,
                 "A tensor's storage is not in the file."};
  }
  const std::uint64_t element = storage_element_size(named->storage_class);
  std::uint64_t size = 0;
  // A class without a DType (quantized, say) stays opaque; its bytes are still there.
  if (element == 0) return std::nullopt;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(named->numel), element, &size) ||
      size != place->size) {
    return Fault{Fault::Kind::corrupt, "storage " + named->key,
                 "The storage holds " + std::to_string(place->size) +
                     " bytes, and the tensor was written with " + std::to_string(named->numel) +
                     " elements of " + named->storage_class + "."};
  }
  return std::nullopt;
}

std::optional<Fault> PthContents::check_tree() const {
  std::optional<Fault> fault;
  pickle::walk(root, [&](const pickle::Value& value) {
    if (fault) return;
    if (std::holds_alternative<std::shared_ptr<pickle::PersistentId>>(value.data)) {
      fault = check_storage(value);
      return;
    }
    if (!pickle::claims_tensor(value) || pickle::as_tensor(value)) return;
    const auto& call = *std::get<std::shared_ptr<pickle::Call>>(value.data);
    const auto* args = call.args.as_sequence();
    const auto storage =
        args != nullptr && !args->empty() ? pickle::as_storage(args->front()) : std::nullopt;
    if (storage && !storage->dtype) return;
    fault = Fault{Fault::Kind::corrupt, describe(value, 120),
                  "A tensor does not lie inside its storage."};
  });
  return fault;
}

}  // namespace millrace
