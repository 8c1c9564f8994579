// Who a checkpoint file is, without reading it: its zip directory and our record alone. Neither the
// pickle nor a storage is read, so a directory of a thousand files costs three small reads each.
#pragma once

#include "millrace/io/state_record.h"
#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"

namespace millrace {

// Generation 0 and no ids for a file without our record: another program's checkpoint, zip or
// legacy. The Fault says why a file cannot be one; no fault does not mean that the file is sound.
// Blocking; throws StorageError when the object cannot be read.
Result<CheckpointIdentity> read_identity(std::shared_ptr<const StoredObject> object);

}  // namespace millrace
