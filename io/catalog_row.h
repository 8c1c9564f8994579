// CatalogRow: what the catalog knows about one checkpoint file. A plain value.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "millrace/io/state_record.h"

namespace millrace {

struct CatalogRow {
  std::string name;             // epoch_3.pth; a best link has a row of its own
  CheckpointIdentity identity;  // of the file; the save id is empty for another program's files
  std::uint64_t size = 0;
  std::string digest;  // SHA-256, hex, of what stands behind the storages in the file: the pickle,
                       // our record, and a directory that holds every CRC-32; empty: unknown
  std::int64_t saved_at_ns =
      0;  // since the Unix epoch; after a rebuild, when the file was modified
  std::map<std::string, double> scores;
  bool scores_known = false;           // false after a rebuild: the file may be somebody's best
  std::optional<bool> pinned = false;  // nothing: unknown, so kept

  bool operator==(const CatalogRow&) const = default;
};

}  // namespace millrace
