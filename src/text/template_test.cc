// SPDX-License-Identifier: Apache-2.0
#include "text/template.h"

#include <numeric>

#include "gtest/gtest.h"
#include "text/smollm2_vocabulary_test.h"

namespace millstream {
namespace {

/// A text column, with nulls where there is no value.
class TextColumn {
 public:
  explicit TextColumn(const std::vector<std::optional<std::string>>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i % 8 == 0) validity_.push_back(0);
      if (values[i])
        validity_.back() = static_cast<std::uint8_t>(validity_.back() | (1 << (i % 8)));
      text_ += values[i].value_or("");
      offsets_.push_back(static_cast<std::int32_t>(text_.size()));
    }
  }

  ColumnView view(ColumnView::Kind kind = ColumnView::Kind::kText) const {
    return {
        .kind = kind,
        .validity = validity_.data(),
        .offset = 0,
        .values = text_.data(),
        .offsets = offsets_.data()
    };
  }

 private:
  std::string text_;
  std::vector<std::int32_t> offsets_ = {0};
  std::vector<std::uint8_t> validity_;
};

std::shared_ptr<const Expression> Compile(
    std::string_view source,
    Expression::Mode mode = Expression::Mode::kValue,
    std::string_view specials = {}
) {
  return Expression::Compile(source, mode, specials).ValueOrDie();
}

struct Cell {
  Values::Kind kind;
  std::string text;
};

/// One row in which `text` is the text and `meta` its JSON.
Values EvaluateRow(
    const Expression& expression,
    const std::optional<std::string>& text,
    const std::string& json = "null"
) {
  const TextColumn texts({text});
  const TextColumn metas({json});
  const std::vector<std::string> names = {"text", "meta"};
  const std::vector<ColumnView> columns = {texts.view(), metas.view(ColumnView::Kind::kJson)};
  Values values;
  EXPECT_TRUE(expression.Evaluate(names, columns, 1, &values).ok());
  return values;
}

TEST(ExpressionTest, ASingleExpressionKeepsItsType) {
  const auto length = EvaluateRow(*Compile(" {{ text|length }}\n"), "héllo");
  EXPECT_EQ(length.kinds[0], Values::Kind::kInt);
  EXPECT_EQ(length.Int(0), 5);
  const auto longer = EvaluateRow(*Compile("{{ text|length > 20 }}"), "hello");
  EXPECT_EQ(longer.kinds[0], Values::Kind::kBool);
  EXPECT_EQ(longer.numbers[0], 0U);
  const auto cut = EvaluateRow(*Compile("{{ text[:3] }}"), "hello");
  EXPECT_EQ(cut.kinds[0], Values::Kind::kText);
  EXPECT_EQ(cut.Text(0), "hel");
  const auto list = EvaluateRow(*Compile("{{ [text, 1, 2.5, none] }}"), "a\"b");
  EXPECT_EQ(list.kinds[0], Values::Kind::kJson);
  EXPECT_EQ(list.Text(0), R"(["a\"b",1,2.5,null])");
  EXPECT_FALSE(Compile("{{ text }} {{ text }}")->is_single());
  EXPECT_TRUE(Compile("{{ {'a': {'b': '}}'}} }}")->is_single());
}

TEST(ExpressionTest, ANullCountsAsUndefined) {
  EXPECT_EQ(EvaluateRow(*Compile("{{ text }}"), std::nullopt).kinds[0], Values::Kind::kUndefined);
  EXPECT_EQ(
      EvaluateRow(*Compile("{{ text[:40] }}"), std::nullopt).kinds[0], Values::Kind::kUndefined
  );
  EXPECT_EQ(
      EvaluateRow(*Compile("{{ text|length > 2 }}"), std::nullopt).kinds[0],
      Values::Kind::kUndefined
  );
  EXPECT_EQ(EvaluateRow(*Compile("{{ text|default('x') }}"), std::nullopt).Text(0), "x");
  EXPECT_EQ(EvaluateRow(*Compile("{{ meta.a|default('x') }}"), "", R"({"a":null})").Text(0), "x");
  EXPECT_EQ(
      EvaluateRow(*Compile("<{% if text %}{{ text }}{% endif %}>"), std::nullopt).Text(0), "<>"
  );
  EXPECT_EQ(EvaluateRow(*Compile("{{ text is none }}"), std::nullopt).numbers[0], 1U);
  const auto values = EvaluateRow(*Compile("Hello {{ text }}"), std::nullopt);
  EXPECT_EQ(values.kinds[0], Values::Kind::kError);
  EXPECT_EQ(values.ErrorCode(0), "undefined_value");
  EXPECT_EQ(values.Text(0), "\"text\" is null or undefined, in Hello {{ text }}");
}

TEST(ExpressionTest, NamesAreColumnsInOrderOfFirstUse) {
  const auto expression = Compile(
      "{% set a = b %}{% for x in c if x.d %}{{ loop.index }}{{ x }}{{ a }}{{ e }}{% endfor %}{{ b "
      "}}"
      "{% macro m(p, q=r) %}{{ p }}{{ s }}{% endmacro %}{{ m(1) }}{{ range(3) }}"
  );
  EXPECT_EQ(expression->names(), (std::vector<std::string>{"b", "c", "e", "r", "s"}));
  EXPECT_FALSE(expression->uses_row());
  const auto row = Compile("{{ row['Customer Name'] }}{{ row.x }}{{ row[text] }}");
  EXPECT_TRUE(row->uses_row());
  EXPECT_EQ(row->names(), (std::vector<std::string>{"text"}));
  EXPECT_EQ(row->row_columns(), (std::vector<std::string>{"Customer Name", "x"}));
  EXPECT_EQ(EvaluateRow(*Compile("{{ row['text'] }}"), "t").Text(0), "t");
}

TEST(ChatTemplateTest, RendersTheModelsOwnTemplate) {
  const auto chat =
      ChatTemplate::Compile(SmolLm2Vocabulary::Get().chat_template(), "<|im_start|>", "<|im_end|>");
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(
      (*chat)->Render(R"([{"role":"user","content":"Hi"}])", {}).ValueOrDie(),
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
      "Face<|im_end|>\n"
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
  );
}

}  // namespace
}  // namespace millstream
