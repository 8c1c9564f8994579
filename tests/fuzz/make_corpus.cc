// Writes the part of the fuzz corpus that our own writers make, and zips made by hand.
//
//   make_fuzz_corpus tests/fuzz/corpus
//
// corpus.py writes the rest. Both are run by hand, when a format gains something.
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "millrace/io/catalog_log.h"
#include "millrace/io/pickler.h"
#include "millrace/io/state_record.h"
#include "tests/fuzz/nested_state.h"
#include "tests/io/support/pth_file.h"
#include "tests/io/support/zip_builder.h"

using namespace millrace;
using pickle::Value;
using test::ZipPart;

namespace {

using Bytes = std::vector<std::byte>;

std::filesystem::path root;

void write(const std::string& name, const Bytes& bytes) {
  std::filesystem::create_directories((root / name).parent_path());
  std::ofstream out(root / name, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Value every_kind() {
  Value tree = Value::ordered_dict();
  tree.set("tensor", pickle::make_tensor({"0", DType::kFloat32, 4, 0, {2, 2}, {2, 1}, true}));
  tree.set(1, Value::tuple({true, false, Value(), -1, std::int64_t{1} << 40, 2.5, "text"}));
  tree.set(2.5, std::numeric_limits<double>::quiet_NaN());
  tree.set("bytes", Value(Value::Data(pickle::Bytes{std::string("\x80\0\x01", 3)})));
  tree.set("big", Value(Value::Data(pickle::BigInt{std::string(20, '\x7f')})));
  const auto set = std::make_shared<pickle::Set>();
  set->items = {1, "x"};
  tree.set("set", Value(Value::Data(set)));
  const Value shared = Value::list({"a", "a"});
  tree.set("shared", Value::list({shared, shared, Value::dict()}));
  pickle::set_attribute(tree, "_metadata", Value::ordered_dict());
  return tree;
}

// Deflated parts, wrong checksums and claims: what no writer of torch makes.
void write_zips() {
  const Value tree = Value::list(
      {pickle::make_tensor({"0", DType::kFloat32, 4, 0, {2, 2}, {2, 1}, false}), "text"});
  const std::string pickled = text_of(pickle::pickle(tree));
  const ZipPart data{.name = "a/data.pkl", .content = pickled, .crc = 0};
  const ZipPart storage{.name = "a/data/0", .content = std::string(16, 'x'), .crc = 0};
  const auto with = [](ZipPart part, auto change) {
    change(part);
    return part;
  };
  const auto deflate = [](ZipPart& part) { part.deflate = true; };
  const auto describe = [](ZipPart& part) { part.descriptor = true, part.crc.reset(); };
  const auto widen = [](ZipPart& part) { part.zip64 = true; };
  write("zip/stored", test::build_zip({data, storage}));
  write("zip/deflated", test::build_zip({with(data, deflate), with(storage, deflate)}));
  write("zip/descriptors", test::build_zip({with(data, describe), with(storage, describe)}));
  write("zip/zip64", test::build_zip({with(data, widen), with(storage, widen)},
                                     {.zip64_end = true, .comment = "a comment"}));
  write("zip/same_name", test::build_zip({data, storage, storage}));
  write("zip/overlap",
        test::build_zip({data, with(storage, [](auto& p) { p.header_offset = 4; })}));
  write("zip/huge_size", test::build_zip({data, with(storage, [](auto& p) {
                                            p.zip64 = true, p.size = p.stored_size = UINT64_MAX;
                                          })}));
  write("zip/many_claimed", test::build_zip({data, storage}, {.entries = 0xFFFF}));
  const std::string zeros(std::size_t{1} << 20, '\0');
  write("zip/bomb", test::build_zip({{.name = "a/data.pkl", .content = zeros, .deflate = true}}));
}

void write_records() {
  write("state_record/empty", encode_state_record({}));
  StateRecord record;
  record.identity = {"00112233445566778899aabbccddeeff",
                     "ffeeddccbbaa99887766554433221100",
                     7,
                     "interval",
                     3,
                     1200};
  for (const char* name : {"rng", "data", "hub", "hook/CheckpointHook"}) {
    record.sections[name] = std::string(24, *name);
  }
  const Bytes whole = encode_state_record(record);
  write("state_record/whole", whole);
  write("state_record/cut", Bytes(whole.begin(), whole.end() - 30));
  for (int i = 0; i < 64; ++i) record.sections[std::string(1, static_cast<char>('0' + i))];
  write("state_record/many", encode_state_record(record));
}

std::vector<CatalogChange> changes() {
  CatalogRow row;
  row.name = "epoch_1.pth";
  row.identity = {"00112233445566778899aabbccddeeff", "", 1, "interval", 1, 4};
  row.size = 1000;
  row.digest = std::string(64, 'a');
  row.scores = {{"accuracy", 0.5}};
  row.scores_known = true;
  CatalogRow again = row;
  again.size = 2000;
  CatalogRow best = row;
  best.name = "best_accuracy_epoch_1.pth";
  best.pinned.reset();
  return {row,
          best,
          CatalogScore{row.identity.save_id, "loss", std::numeric_limits<double>::quiet_NaN()},
          CatalogPin{row.name, true},
          again,
          CatalogEnd{best.name},
          CatalogScore{"unknown", "loss", 1}};
}

void write_catalogs() {
  Bytes log = catalog_header();
  write("catalog/empty", log);
  Bytes cut_up;  // as fuzz_catalog.cc puts heads before payloads
  for (const CatalogChange& change : changes()) {
    const Bytes record = catalog_record(change);
    log.insert(log.end(), record.begin(), record.end());
    const std::size_t length = record.size() - 12;
    cut_up.push_back(static_cast<std::byte>(length));
    cut_up.push_back(static_cast<std::byte>(length >> 8));
    cut_up.insert(cut_up.end(), record.begin() + 12, record.end());
  }
  write("catalog/log", log);
  write("catalog/torn", Bytes(log.begin(), log.end() - 5));
  write("catalog/payloads", cut_up);
}

void write_states() {
  const auto write_state = [](const std::string& name, const fuzz::NestedState& state) {
    const std::string bytes = encode(state);
    const auto all = std::as_bytes(std::span(bytes));
    write("state_archive/" + name, {all.begin(), all.end()});
  };
  write_state("empty", {});
  fuzz::NestedState state;
  state.flag = true;
  state.number = -1;
  state.text = "text";
  state.history = {0.5, -1e300};
  state.names = {"a", "", "name"};
  state.series = {{"acc", {0.25f}}, {"loss", {}}};
  state.window = {1, 2, 3};
  state.queue = {"first"};
  state.note = "note";
  state.either = "either";
  state.seen = {7, 11};
  state.tree = std::make_unique<fuzz::TreeNode>();
  for (fuzz::TreeNode* node = state.tree.get(); node->value < 5;) {
    const std::int32_t next = node->value + 1;
    node->left = std::make_unique<fuzz::TreeNode>();
    node->right = std::make_unique<fuzz::TreeNode>();
    node = node->left.get();
    node->value = next;
  }
  write_state("whole", state);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  root = argv[1];
  const Bytes storage(16, std::byte{'x'});
  write("pickle/ours", pickle::pickle(every_kind()));
  write("zip/ours", test::small_file());
  write("zip/every_kind", test::make_file(every_kind(), {storage}));
  write_zips();
  write_records();
  write_catalogs();
  write_states();
  return 0;
}
