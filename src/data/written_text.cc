// SPDX-License-Identifier: Apache-2.0
#include "data/written_text.h"

#include <algorithm>

namespace millstream {
namespace {

class WrittenText final : public arrow::RecordBatchReader {
 public:
  WrittenText(
      SourcePtr file, std::string name, SchemaPtr schema, std::string header, ParseRow parse
  )
      : file_(std::move(file)),
        name_(std::move(name)),
        schema_(std::move(schema)),
        header_(std::move(header)),
        parse_(std::move(parse)) {}

  Status Open() {
    for (const auto& field : schema_->fields()) {
      MS_ASSIGN_OR_RETURN(auto builder, arrow::MakeBuilderExactIndex(field->type()));
      builders_.push_back(std::move(builder));
    }
    MS_RETURN_NOT_OK(ReadMore());
    while (!at_end_ && buffer_.size() < header_.size()) MS_RETURN_NOT_OK(ReadMore());
    if (!std::string_view(buffer_).starts_with(header_)) {
      return Wrong("the columns are not those of the job");
    }
    begin_ = header_.size();
    return Status::OK();
  }

  SchemaPtr schema() const override { return schema_; }

  Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    batch->reset();
    std::int64_t num_rows = 0;
    std::size_t num_bytes = 0;
    while (num_rows < kBatchRows && num_bytes < kBatchBytes) {
      const std::string_view rest = std::string_view(buffer_).substr(begin_);
      std::optional<std::size_t> length;
      if (!rest.empty()) {
        const auto parsed = parse_(rest, builders_);
        if (!parsed.ok()) return Wrong(parsed.status().message());
        length = *parsed;
      }
      if (length) {
        begin_ += *length;
        num_bytes += *length;
        ++num_rows;
        ++row_;
      } else if (!at_end_) {
        MS_RETURN_NOT_OK(ReadMore());
      } else if (!rest.empty()) {
        return Wrong("is cut off");
      } else {
        break;
      }
    }
    if (num_rows == 0) return Status::OK();
    arrow::ArrayVector columns;
    for (const auto& builder : builders_) {
      MS_ASSIGN_OR_RETURN(auto column, builder->Finish());
      columns.push_back(std::move(column));
    }
    *batch = arrow::RecordBatch::Make(schema_, num_rows, std::move(columns));
    return Status::OK();
  }

 private:
  static constexpr std::int64_t kBatchRows = 4096;
  static constexpr std::size_t kBatchBytes = std::size_t{16} << 20;
  static constexpr std::size_t kReadBytes = std::size_t{1} << 20;

  Status Wrong(std::string_view what) const {
    return Status::Invalid("cannot read ", name_, ": row ", row_, ": ", std::string(what));
  }

  // Twice as much at a time while one row fills the buffer, so that a long row costs no more than
  // its length.
  Status ReadMore() {
    buffer_.erase(0, std::exchange(begin_, 0));
    const std::size_t have = buffer_.size();
    const std::size_t wanted = std::max(kReadBytes, have);
    buffer_.resize(have + wanted);
    MS_ASSIGN_OR_RETURN(
        const std::int64_t got,
        file_->Read(static_cast<std::int64_t>(wanted), buffer_.data() + have)
    );
    buffer_.resize(have + static_cast<std::size_t>(got));
    at_end_ = got == 0;
    return Status::OK();
  }

  const SourcePtr file_;
  const std::string name_;
  const SchemaPtr schema_;
  const std::string header_;
  const ParseRow parse_;
  RowBuilders builders_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of the next row in the buffer
  std::int64_t row_ = 1;
  bool at_end_ = false;
};

}  // namespace

Status TextSink::Flush() {
  MS_RETURN_NOT_OK(sink_->Write(text_.data(), static_cast<std::int64_t>(text_.size())));
  text_.clear();
  return Status::OK();
}

Result<BatchReaderPtr> ReadWrittenText(
    SourcePtr file, const std::string& name, SchemaPtr schema, std::string header, ParseRow parse
) {
  auto reader = std::make_shared<WrittenText>(
      std::move(file), name, std::move(schema), std::move(header), std::move(parse)
  );
  MS_RETURN_NOT_OK(reader->Open());
  return reader;
}

}  // namespace millstream
