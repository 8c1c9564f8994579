#include "millrace/io/publish.h"

#include <algorithm>
#include <utility>

#include "millrace/io/checkpoint_name.h"
#include "millrace/io/digest_image.h"
#include "millrace/io/pickle_walk.h"
#include "millrace/io/pickler.h"
#include "millrace/io/pth_layout.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

using pickle::Value;
using Pairs = std::vector<std::pair<Value, Value>>;

bool contains(std::span<const std::string> keys, const std::string& key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::string key_text(const Value& key) {
  const std::string* text = key.as_string();
  return text != nullptr ? *text : describe(key, 80);
}

// The same kind of mapping around other pairs; the source's node is not touched.
Value with_pairs(const Value& mapping, Pairs pairs) {
  if (const auto* call = std::get_if<std::shared_ptr<pickle::Call>>(&mapping.data)) {
    auto reduced = std::make_shared<pickle::Call>(**call);
    reduced->pairs = std::move(pairs);
    return Value(Value::Data(std::move(reduced)));
  }
  auto reduced = std::make_shared<pickle::Dict>();
  reduced->items = std::move(pairs);
  return Value(Value::Data(std::move(reduced)));
}

std::string nothing_left(std::span<const std::string> asked, const std::vector<std::string>& has) {
  std::string text = "it has none of the keys to publish (";
  for (const std::string& key : asked) text += (&key == asked.data() ? "" : ", ") + key;
  text += "); its keys are";
  for (const std::string& key : has) text += " " + key;
  for (const std::string& key : asked) {
    const std::string nearest = nearest_name(key, has);
    if (!nearest.empty()) text += "; did you mean " + nearest + " instead of " + key + "?";
  }
  return text;
}

Value reduce(const std::string& path, const Value& root, std::span<const std::string> keys,
             PublishedCheckpoint& published) {
  const Pairs* pairs = root.as_mapping();
  if (pairs == nullptr) {
    throw CheckpointError(path, "it is not a mapping at its top, so it has no keys to publish");
  }
  Pairs kept;
  for (const auto& pair : *pairs) {
    const std::string* key = pair.first.as_string();
    if (key != nullptr && contains(keys, *key)) {
      kept.push_back(pair);
    } else {
      published.removed_keys.push_back(key_text(pair.first));
    }
  }
  if (kept.empty()) throw CheckpointError(path, nothing_left(keys, published.removed_keys));
  for (const std::string& key : keys) {
    if (root.find(key) == nullptr) published.missing_keys.push_back(key);
  }
  return with_pairs(root, std::move(kept));
}

// The new file: its layout, its pickle, and where its storages come from.
class ReducedFile {
 public:
  ReducedFile(std::string path, PthReader source, const Value& root)
      : path_(std::move(path)),
        source_(std::move(source)),
        keys_(storage_order(root)),
        layout_(sizes()),
        pickle_(pickle::pickle(root, names())) {}

  std::uint64_t size() const {
    return layout_.storages_end() + layout_.tail_size(pickle_.size(), {});
  }

  // Producer thread.
  void write(DigestImage::Sink& sink) const {
    std::vector<std::uint32_t> crcs;
    std::vector<std::byte> small;
    const auto put = [&](std::uint64_t size, auto fill) {
      small.resize(size);
      fill(std::span(small));
      sink.put(small);
    };
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      put(layout_.data_offset(i) - layout_.header_offset(i),
          [&](auto room) { layout_.write_header(i, room); });
      const auto crc =
          source_.stream_storage(keys_[i], [&](std::size_t most) { return sink.room(most); });
      if (!crc) throw CheckpointError(path_, crc.fault().text());
      crcs.push_back(crc.value());
      put(layout_.end_offset(i) - layout_.data_end(i),
          [&](auto room) { layout_.write_descriptor(i, crcs[i], room); });
    }
    sink.put(layout_.make_tail(crcs, pickle_, {}));
  }

 private:
  std::vector<std::uint64_t> sizes() const {
    std::vector<std::uint64_t> sizes;
    for (const std::string& key : keys_) sizes.push_back(source_.storage_size(key).value());
    return sizes;
  }
  pickle::StorageNames names() const {
    pickle::StorageNames names;
    for (std::size_t i = 0; i < keys_.size(); ++i) names.emplace(keys_[i], std::to_string(i));
    return names;
  }

  const std::string path_;
  const PthReader source_;
  const std::vector<std::string> keys_;  // of the source's storages, in the new order
  const PthLayout layout_;
  const std::vector<std::byte> pickle_;
};

}  // namespace

PublishedCheckpoint publish_checkpoint(Storage& storage, std::string_view name,
                                       std::span<const std::string> published_keys,
                                       const std::stop_token& stop) {
  const std::string path = storage.location() + "/" + std::string(name);
  auto source = PthReader::open(storage.open(name));
  if (!source) throw CheckpointError(path, source.fault().text());
  PublishedCheckpoint published;
  const Value root = reduce(path, source->root(), published_keys, published);
  const ReducedFile file(path, std::move(source).value(), root);
  published.bytes = file.size();
  DigestImage image(
      "publishing " + path, file.size(), [&file](DigestImage::Sink& sink) { file.write(sink); },
      stop);
  try {
    published.name = storage
                         .commit_named(name_stem(name), image,
                                       [&] {
                                         published.sha256 = image.digest();
                                         return published_name(name, published.sha256);
                                       })
                         .name;
  } catch (...) {
    image.close();
    throw;
  }
  image.close();
  return published;
}

}  // namespace millrace
