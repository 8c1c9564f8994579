// The catalog: what is known about every checkpoint of a storage, as an append-only log.
//
//   checkpoints.catalog   catalog_log.h has the bytes
//
// A record adds a row, or changes one: a score, a pin, the end of its file. Rows are keyed by save
// id, so a row never speaks for another file that took over its name. The files remain the truth: a
// catalog that is missing, corrupt or of a newer version is rebuilt from them, with scores and pins
// unknown, and unknown means keep. One that a kill cut loses only the change that was being
// written; power that is lost meanwhile may also leave a hole in that change, which counts as
// corrupt. A newer version's file is left as it is, and nothing is written to it.
//
// The order of a caller: commit the file, then add its row; retire the file, then its row. A crash
// in between leaves a file without a row, or a row without a file, and open() puts both right.
//
// One owner, on one I/O thread at a time; calls block and are durable when they return. A change
// that cannot be written throws StorageError. It counts here all the same, and the next change that
// can be written writes it too. The log is committed anew as a whole (atomically) where the storage
// cannot append, after a failure, and when most of its records no longer matter.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/catalog_log.h"
#include "millrace/io/catalog_row.h"
#include "millrace/io/storage.h"

namespace millrace {

class Catalog {
 public:
  static constexpr std::string_view kName = "checkpoints.catalog";

  explicit Catalog(Storage& storage) : storage_(storage) {}

  // Reads the log and holds it against the files: rows whose file is gone are dropped, rows whose
  // id is not their file's are void, files without a row get one with everything unknown, newest
  // generation last. A file is every *.pth but published ones; of each only its identity is read,
  // and one that has none to read (it is broken, or no checkpoint) gets no row. Returns what there
  // is to say about it, one sentence each. Throws StorageError only when the storage cannot be
  // listed.
  std::vector<std::string> open();

  // In the order they were added.
  const std::vector<CatalogRow>& rows() const noexcept { return rows_; }
  // By name or by save id; null when there is none. Of several links to one save, the first.
  const CatalogRow* find(std::string_view name) const;
  const CatalogRow* find_save(std::string_view save_id) const;

  void add(CatalogRow row);  // replaces a row of the same name
  // These write nothing and return false when there is no such row. A score goes to every link of
  // the save.
  bool score(std::string_view save_id, std::string_view metric, double value);
  bool pin(std::string_view name, bool pinned);
  bool retire(std::string_view name);

 private:
  struct File;

  CatalogLog load(std::vector<std::string>& notes);
  std::vector<File> read_files(std::vector<std::string>& notes) const;
  bool reconcile(std::vector<CatalogRow> logged, std::vector<std::string>& notes);
  bool change(const CatalogChange& change);
  bool mostly_dead() const;
  void commit_whole();

  Storage& storage_;
  std::vector<CatalogRow> rows_;
  bool newer_ = false;  // a newer version's log is there: write nothing
  bool whole_ = true;   // the log is not what rows_ says: the next write is a whole commit
  std::size_t records_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace millrace
