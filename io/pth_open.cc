#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "millrace/io/file_signature.h"
#include "millrace/io/pth_contents.h"
#include "millrace/io/pth_legacy.h"
#include "millrace/io/unpickler.h"

namespace millrace {
namespace {

constexpr std::string_view kStateEntry = "millrace/state";

Fault foreign(const std::string& what) {
  return {Fault::Kind::foreign, {}, "This is " + what + ", not a checkpoint."};
}

pickle::UnpickleLimits unpickle_limits(const PthContents& file) {
  return {file.limits.max_values, file.limits.max_depth};
}

std::optional<Fault> find_root(PthContents& file) {
  std::vector<std::string_view> names;
  for (const ZipEntry& entry : file.zip->entries()) names.push_back(entry.name);
  if (names.empty()) return foreign("an empty zip archive");
  // torch takes the folder of the first entry; a re-zipped file may start with another.
  const std::string first(names.front().substr(0, names.front().find('/')));
  if (file.zip->find(first + "/data.pkl") != nullptr) {
    file.prefix = first + "/";
  } else {
    const auto found = std::find_if(names.begin(), names.end(), [](std::string_view name) {
      return name.ends_with("/data.pkl") && name.find('/') == name.size() - 9;
    });
    if (found == names.end()) return foreign(zip_looks_like(names));
    file.prefix = found->substr(0, found->size() - 8);
  }
  if (file.find("constants.pkl") != nullptr) {
    return foreign("a TorchScript archive, a program that torch.jit.save wrote");
  }
  return std::nullopt;
}

std::optional<Fault> check_byte_order(const PthContents& file) {
  const ZipEntry* entry = file.find("byteorder");
  if (entry == nullptr) return std::nullopt;
  const auto bytes = file.read_whole(*entry);
  if (!bytes) return bytes.fault();
  const std::string text(reinterpret_cast<const char*>(bytes.value().data()), bytes.value().size());
  if (text == "little") return std::nullopt;
  if (text == "big") {
    return Fault{Fault::Kind::foreign, entry->name,
                 "The file was written on a big-endian machine; only little-endian files are "
                 "read."};
  }
  return Fault{Fault::Kind::corrupt, entry->name, "The byte order is neither little nor big."};
}

std::optional<Fault> open_zip(PthContents& file) {
  auto directory = ZipDirectory::read(*file.object, file.limits.max_entries);
  if (!directory) return directory.fault();
  file.zip = std::move(directory.value());
  if (auto fault = find_root(file)) return fault;
  file.ours = file.find(kStateEntry) != nullptr;
  const std::string data = file.prefix + "data/";
  for (const ZipEntry& entry : file.zip->entries()) {
    if (entry.name.starts_with(data) && entry.name.size() > data.size()) {
      file.add_storage(entry.name.substr(data.size()), {&entry, 0, entry.size});
      continue;
    }
    // A damaged name in the directory would hide an entry; its own header still has it.
    const auto located = locate_entry(*file.object, entry);
    if (!located) return located.fault();
  }
  if (auto fault = check_byte_order(file)) return fault;
  const ZipEntry& pickled = *file.find("data.pkl");
  const auto bytes = file.read_whole(pickled);
  if (!bytes) return bytes.fault();
  auto value = pickle::unpickle(bytes.value(), unpickle_limits(file));
  if (!value) {
    Fault fault = value.fault();
    fault.where = pickled.name + ", " + fault.where;
    // The entry is whole, so a pickle that ends early was written that way.
    if (fault.kind == Fault::Kind::truncated) fault.kind = Fault::Kind::corrupt;
    return fault;
  }
  file.root = std::move(value.value());
  return file.check_tree();
}

std::optional<Fault> open_legacy(PthContents& file) {
  auto legacy = read_legacy(*file.object, file.limits.max_pickle_bytes, unpickle_limits(file));
  if (!legacy) return legacy.fault();
  file.root = std::move(legacy->root);
  for (const LegacyStorage& each : legacy->storages) {
    // The number of elements before the data is the one check the format allows.
    std::array<std::byte, 8> raw{};
    file.object->read(each.offset - 8, raw);
    std::uint64_t numel = 0;
    for (std::size_t i = raw.size(); i > 0; --i) {
      numel = numel << 8 | std::to_integer<std::uint64_t>(raw[i - 1]);
    }
    if (numel > each.size || (numel == 0 ? each.size != 0 : each.size % numel != 0)) {
      return Fault{Fault::Kind::corrupt, "storage " + each.key,
                   "The storage's length is not what its tensor says."};
    }
    file.add_storage(each.key, {nullptr, each.offset, each.size});
  }
  return file.check_tree();
}

}  // namespace

Result<std::shared_ptr<const PthContents>> open_pth(std::shared_ptr<const StoredObject> object,
                                                    const PthLimits& limits) {
  std::vector<std::byte> head(std::min<std::uint64_t>(object->size(), 512));
  object->read(0, head);
  const auto file = std::make_shared<PthContents>();
  file->object = std::move(object);
  file->limits = limits;
  constexpr std::array kZip{std::byte{'P'}, std::byte{'K'}, std::byte{3}, std::byte{4}};
  const std::size_t known = std::min(head.size(), kZip.size());
  std::optional<Fault> fault;
  if (known > 0 && std::equal(head.begin(), head.begin() + known, kZip.begin())) {
    fault = open_zip(*file);
  } else if (maybe_legacy(head)) {
    fault = open_legacy(*file);
  } else {
    fault = foreign(looks_like(head));
  }
  if (fault) return *std::move(fault);
  return std::shared_ptr<const PthContents>(file);
}

}  // namespace millrace
