#include "millrace/io/pth_reader.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <unordered_map>

#include "millrace/io/file_signature.h"
#include "millrace/io/pickle_walk.h"
#include "millrace/io/pth_legacy.h"
#include "millrace/io/unpickler.h"
#include "millrace/io/zip_directory.h"

namespace millrace {
namespace {

using pickle::Value;

constexpr std::string_view kStateEntry = "millrace/state";
// A compressed entry that is read into memory as a whole may expand this much, or to a MiB.
constexpr std::uint64_t kMaxExpansion = 200;

Fault make_fault(Fault::Kind kind, std::string where, std::string what) {
  return {kind, std::move(where), std::move(what)};
}

Fault foreign(const std::string& what) {
  return make_fault(Fault::Kind::foreign, {}, "This is " + what + ", not a checkpoint.");
}

struct Place {
  const ZipEntry* entry = nullptr;  // null in a legacy file
  std::uint64_t offset = 0;         // of a legacy storage
  std::uint64_t size = 0;
};

}  // namespace

struct PthReader::Impl {
  std::shared_ptr<const StoredObject> object;
  PthLimits limits;
  Value root;
  std::optional<ZipDirectory> zip;
  std::string prefix;  // "archive/"
  bool ours = false;
  std::vector<std::string> keys;  // in the order of the file
  std::unordered_map<std::string, Place> storages;

  std::optional<Fault> open_zip();
  std::optional<Fault> open_legacy();
  std::optional<Fault> find_root();
  std::optional<Fault> check_byte_order() const;
  std::optional<Fault> check_tree() const;
  std::optional<Fault> check_storage(const Value& id) const;

  const ZipEntry* find(std::string_view name) const {
    return zip ? zip->find(prefix + std::string(name)) : nullptr;
  }
  const Place* storage(std::string_view key) const {
    const auto found = storages.find(std::string(key));
    return found != storages.end() ? &found->second : nullptr;
  }
  void add_storage(std::string key, Place place) {
    keys.push_back(key);
    storages.emplace(std::move(key), place);
  }
  // torch writes zeros when told not to compute checksums; Millrace always computes them.
  bool has_crc(const ZipEntry& entry) const { return ours || entry.crc != 0; }
  Result<std::vector<std::byte>> read_whole(const ZipEntry& entry) const;
  pickle::UnpickleLimits unpickle_limits() const { return {limits.max_values, limits.max_depth}; }
};

std::optional<Fault> PthReader::Impl::find_root() {
  std::vector<std::string_view> names;
  for (const ZipEntry& entry : zip->entries()) names.push_back(entry.name);
  if (names.empty()) return foreign("an empty zip archive");
  // torch takes the folder of the first entry; a re-zipped file may start with another.
  const std::string first(names.front().substr(0, names.front().find('/')));
  if (zip->find(first + "/data.pkl") != nullptr) {
    prefix = first + "/";
  } else {
    const auto found = std::find_if(names.begin(), names.end(), [](std::string_view name) {
      return name.ends_with("/data.pkl") && name.find('/') == name.size() - 9;
    });
    if (found == names.end()) return foreign(zip_looks_like(names));
    prefix = found->substr(0, found->size() - 8);
  }
  if (find("constants.pkl") != nullptr) {
    return foreign("a TorchScript archive, a program that torch.jit.save wrote");
  }
  return std::nullopt;
}

std::optional<Fault> PthReader::Impl::check_byte_order() const {
  const ZipEntry* entry = find("byteorder");
  if (entry == nullptr) return std::nullopt;
  const auto bytes = read_whole(*entry);
  if (!bytes) return bytes.fault();
  const std::string text(reinterpret_cast<const char*>(bytes.value().data()), bytes.value().size());
  if (text == "little") return std::nullopt;
  if (text == "big") {
    return make_fault(Fault::Kind::foreign, entry->name,
                      "The file was written on a big-endian machine; only little-endian files are "
                      "read.");
  }
  return make_fault(Fault::Kind::corrupt, entry->name, "The byte order is neither little nor big.");
}

Result<std::vector<std::byte>> PthReader::Impl::read_whole(const ZipEntry& entry) const {
  const bool bomb = entry.deflated && entry.size > (std::uint64_t{1} << 20) &&
                    entry.size / kMaxExpansion > entry.stored_size;
  if (entry.size > limits.max_pickle_bytes || bomb) {
    return make_fault(Fault::Kind::limit, entry.name,
                      "The entry would take " + std::to_string(entry.size) +
                          " bytes of memory, which is beyond the limit.");
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

std::optional<Fault> PthReader::Impl::open_zip() {
  auto directory = ZipDirectory::read(*object, limits.max_entries);
  if (!directory) return directory.fault();
  zip = std::move(directory.value());
  if (auto fault = find_root()) return fault;
  ours = find(kStateEntry) != nullptr;
  const std::string data = prefix + "data/";
  for (const ZipEntry& entry : zip->entries()) {
    if (entry.name.starts_with(data) && entry.name.size() > data.size()) {
      add_storage(entry.name.substr(data.size()), {&entry, 0, entry.size});
      continue;
    }
    // A damaged name in the directory would hide an entry; its own header still has it.
    const auto located = locate_entry(*object, entry);
    if (!located) return located.fault();
  }
  if (auto fault = check_byte_order()) return fault;
  const ZipEntry& pickled = *find("data.pkl");
  const auto bytes = read_whole(pickled);
  if (!bytes) return bytes.fault();
  auto value = pickle::unpickle(bytes.value(), unpickle_limits());
  if (!value) {
    Fault fault = value.fault();
    fault.where = pickled.name + ", " + fault.where;
    // The entry is whole, so a pickle that ends early was written that way.
    if (fault.kind == Fault::Kind::truncated) fault.kind = Fault::Kind::corrupt;
    return fault;
  }
  root = std::move(value.value());
  return check_tree();
}

std::optional<Fault> PthReader::Impl::open_legacy() {
  auto file = read_legacy(*object, limits.max_pickle_bytes, unpickle_limits());
  if (!file) return file.fault();
  root = std::move(file->root);
  for (const LegacyStorage& each : file->storages) {
    // The number of elements before the data is the one check the format allows.
    std::array<std::byte, 8> raw{};
    object->read(each.offset - 8, raw);
    std::uint64_t numel = 0;
    for (std::size_t i = raw.size(); i > 0; --i) {
      numel = numel << 8 | std::to_integer<std::uint64_t>(raw[i - 1]);
    }
    if (numel > each.size || (numel == 0 ? each.size != 0 : each.size % numel != 0)) {
      return make_fault(Fault::Kind::corrupt, "storage " + each.key,
                        "The storage's length is not what its tensor says.");
    }
    add_storage(each.key, {nullptr, each.offset, each.size});
  }
  return check_tree();
}

std::optional<Fault> PthReader::Impl::check_storage(const Value& id) const {
  const auto named = pickle::as_storage(id);
  if (!named) {
    return make_fault(Fault::Kind::corrupt, describe(id, 80),
                      "A tensor's storage is described in a way that is not known.");
  }
  const Place* place = storage(named->key);
  if (place == nullptr) {
    return make_fault(Fault::Kind::corrupt, "storage " + named->key,
                      "A tensor's storage is not in the file.");
  }
  const std::uint64_t element = storage_element_size(named->storage_class);
  std::uint64_t size = 0;
  // A class without a DType (quantized, say) stays opaque; its bytes are still there.
  if (element == 0) return std::nullopt;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(named->numel), element, &size) ||
      size != place->size) {
    return make_fault(Fault::Kind::corrupt, "storage " + named->key,
                      "The storage holds " + std::to_string(place->size) +
                          " bytes, and the tensor was written with " +
                          std::to_string(named->numel) + " elements of " + named->storage_class +
                          ".");
  }
  return std::nullopt;
}

std::optional<Fault> PthReader::Impl::check_tree() const {
  std::optional<Fault> fault;
  pickle::walk(root, [&](const Value& value) {
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
    fault = make_fault(Fault::Kind::corrupt, describe(value, 120),
                       "A tensor does not lie inside its storage.");
  });
  return fault;
}

PthReader::PthReader(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Result<PthReader> PthReader::open(std::shared_ptr<const StoredObject> object, PthLimits limits) {
  std::vector<std::byte> head(std::min<std::uint64_t>(object->size(), 512));
  object->read(0, head);
  auto impl = std::make_shared<Impl>();
  impl->object = std::move(object);
  impl->limits = limits;
  constexpr std::array kZip{std::byte{'P'}, std::byte{'K'}, std::byte{3}, std::byte{4}};
  const std::size_t known = std::min(head.size(), kZip.size());
  std::optional<Fault> fault;
  if (known > 0 && std::equal(head.begin(), head.begin() + known, kZip.begin())) {
    fault = impl->open_zip();
  } else if (maybe_legacy(head)) {
    fault = impl->open_legacy();
  } else {
    fault = foreign(looks_like(head));
  }
  if (fault) return *std::move(fault);
  return PthReader(std::move(impl));
}

const pickle::Value& PthReader::root() const { return impl_->root; }

std::optional<std::uint64_t> PthReader::storage_size(std::string_view key) const {
  const Place* place = impl_->storage(key);
  if (place == nullptr) return std::nullopt;
  return place->size;
}

std::vector<std::string> PthReader::storage_keys() const { return impl_->keys; }

Result<std::monostate> PthReader::read_storage(std::string_view key,
                                               std::span<std::byte> out) const {
  const Place* place = impl_->storage(key);
  if (place == nullptr) {
    return make_fault(Fault::Kind::corrupt, "storage " + std::string(key),
                      "The file has no such storage.");
  }
  if (out.size() != place->size) {
    throw std::logic_error("PthReader::read_storage: the room is not of the storage's size");
  }
  if (place->entry == nullptr) {
    impl_->object->read(place->offset, out);
    return std::monostate{};
  }
  return read_entry(*impl_->object, *place->entry, impl_->has_crc(*place->entry),
                    [&](std::size_t size) {
                      const auto room = out.first(size);
                      out = out.subspan(size);
                      return room;
                    });
}

std::uint64_t PthReader::storage_offset(std::string_view key) const {
  const Place* place = impl_->storage(key);
  if (place == nullptr) return 0;
  if (place->entry == nullptr) return place->offset;
  if (place->entry->deflated) return 0;
  const auto at = locate_entry(*impl_->object, *place->entry);
  return at ? at.value() : 0;
}

Result<std::optional<std::vector<std::byte>>> PthReader::entry(std::string_view name) const {
  const ZipEntry* found = impl_->find(name);
  if (found == nullptr) return std::optional<std::vector<std::byte>>();
  auto bytes = impl_->read_whole(*found);
  if (!bytes) return bytes.fault();
  return std::optional(std::move(bytes.value()));
}

Result<std::monostate> PthReader::verify() const {
  if (impl_->zip) {
    std::vector<std::byte> scratch;
    for (const ZipEntry& entry : impl_->zip->entries()) {
      const auto read =
          read_entry(*impl_->object, entry, impl_->has_crc(entry), [&](std::size_t n) {
            if (scratch.size() < n) scratch.resize(n);
            return std::span(scratch).first(n);
          });
      if (!read) return read.fault();
    }
  }
  if (auto fault = impl_->check_tree()) return *std::move(fault);
  return std::monostate{};
}

}  // namespace millrace
