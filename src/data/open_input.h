// SPDX-License-Identifier: Apache-2.0
// The files of the input, on the local disk or on S3, for Arrow's readers.

#pragma once

#include <memory>

#include "arrow/io/interfaces.h"
#include "base/status.h"
#include "data/input.h"

namespace millstream {

/// Opens a file; of an object, the pinned version of it. Its buffers count as the readers' do.
Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInput(const InputFile& file);

/// Why reading from a file of OpenInput failed, if it was not for what stands in it: its store does
/// not answer, or it was changed. Readers ask before they call a file damaged.
Status ReadFailure(const arrow::io::RandomAccessFile& file);

}  // namespace millstream
