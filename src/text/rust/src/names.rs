// SPDX-License-Identifier: Apache-2.0
//! What a template reads and uses, found in its parsed form.

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Stmt};
use minijinja::machinery::Span;

/// Filters that keep a text "safe" though they cut or change it.
const RESHAPING: [&str; 11] =
    ["replace", "reverse", "split", "lines", "first", "last", "join", "format", "trim", "indent", "map"];

#[derive(Default)]
pub struct Usage {
    /// Names that are not the template's own, in order of first use.
    pub names: Vec<String>,
    /// Columns named as `row["X"]` or `row.X`.
    pub row_columns: Vec<String>,
    pub functions: Vec<(String, Span)>,
    pub filters: Vec<(String, Span)>,
    pub tests: Vec<(String, Span)>,
    /// Where a null must not pass for an empty text: in what is sliced, joined by ~ or compared for order.
    pub operands: Vec<std::ops::Range<usize>>,
    /// Whether output is captured (macros, set blocks, filter blocks), and whether such a text may be changed.
    pub captures: bool,
    pub reshapes: bool,
}

impl Usage {
    pub fn of_template(root: &Stmt) -> Usage {
        Usage::run(|visitor| visitor.statement(root))
    }

    pub fn of_expression(root: &Expr) -> Usage {
        Usage::run(|visitor| visitor.expression(root))
    }

    fn run<'a>(walk: impl FnOnce(&mut Visitor<'a>)) -> Usage {
        let mut visitor = Visitor { usage: Usage::default(), scopes: vec![vec!["self"]] };
        walk(&mut visitor);
        visitor.usage
    }
}

struct Visitor<'a> {
    usage: Usage,
    scopes: Vec<Vec<&'a str>>,
}

fn add(list: &mut Vec<String>, name: &str) {
    if !list.iter().any(|known| known == name) {
        list.push(name.to_string());
    }
}

impl<'a> Visitor<'a> {
    fn is_own(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(&name))
    }

    fn scoped(&mut self, own: &[&'a str], body: impl FnOnce(&mut Self)) {
        self.scopes.push(own.to_vec());
        body(self);
        self.scopes.pop();
    }

    fn assign(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(name) => self.scopes.last_mut().expect("a scope").push(name.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.assign(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.assign(item)),
            other => self.expression(other),
        }
    }

    fn body(&mut self, statements: &[Stmt<'a>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn captured(&mut self, own: &[&'a str], statements: &[Stmt<'a>]) {
        self.usage.captures = true;
        self.scoped(own, |v| v.body(statements));
    }

    fn statement(&mut self, node: &Stmt<'a>) {
        match node {
            Stmt::Template(node) => self.body(&node.children),
            Stmt::EmitExpr(node) => self.expression(&node.expr),
            Stmt::ForLoop(node) => {
                self.expression(&node.iter);
                self.scoped(&["loop"], |v| {
                    v.assign(&node.target);
                    v.option(&node.filter_expr);
                    v.body(&node.body);
                });
                self.scoped(&[], |v| v.body(&node.else_body));
            }
            Stmt::IfCond(node) => {
                self.expression(&node.expr);
                self.body(&node.true_body);
                self.body(&node.false_body);
            }
            Stmt::WithBlock(node) => self.scoped(&[], |v| {
                for (target, value) in &node.assignments {
                    v.expression(value);
                    v.assign(target);
                }
                v.body(&node.body);
            }),
            Stmt::Set(node) => {
                self.expression(&node.expr);
                self.assign(&node.target);
            }
            Stmt::SetBlock(node) => {
                self.captured(&[], &node.body);
                self.usage.reshapes |= node.filter.is_some();
                self.option(&node.filter);
                self.assign(&node.target);
            }
            Stmt::AutoEscape(node) => {
                self.expression(&node.enabled);
                self.body(&node.body);
            }
            Stmt::FilterBlock(node) => {
                self.usage.reshapes = true;
                self.captured(&[], &node.body);
                self.expression(&node.filter);
            }
            Stmt::Macro(node) => {
                self.assign_name(node.name);
                self.macro_body(&node.args, &node.defaults, &node.body);
            }
            Stmt::CallBlock(node) => {
                self.call(&node.call.expr, &node.call.args, node.call.span());
                let body = &node.macro_decl;
                self.macro_body(&body.args, &body.defaults, &body.body);
            }
            Stmt::Do(node) => self.call(&node.call.expr, &node.call.args, node.call.span()),
            _ => {}
        }
    }

    fn assign_name(&mut self, name: &'a str) {
        self.scopes.last_mut().expect("a scope").push(name);
    }

    fn macro_body(&mut self, arguments: &[Expr<'a>], defaults: &[Expr<'a>], body: &[Stmt<'a>]) {
        defaults.iter().for_each(|default| self.expression(default));
        self.scoped(&["caller"], |v| {
            arguments.iter().for_each(|argument| v.assign(argument));
            v.captured(&[], body);
        });
    }

    fn option(&mut self, node: &Option<Expr<'a>>) {
        if let Some(node) = node {
            self.expression(node);
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
                    self.expression(e);
                }
            }
        }
    }

    fn call(&mut self, callee: &Expr<'a>, arguments: &[CallArg<'a>], span: Span) {
        match callee {
            Expr::Var(name) if !self.is_own(name.id) => self.usage.functions.push((name.id.to_string(), span)),
            callee => self.expression(callee),
        }
        self.arguments(arguments);
    }

    fn expression(&mut self, node: &Expr<'a>) {
        match node {
            Expr::Var(name) if !self.is_own(name.id) => add(&mut self.usage.names, name.id),
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(node) => {
                self.operand(&node.expr);
                self.expression(&node.expr);
                self.option(&node.start);
                self.option(&node.stop);
                self.option(&node.step);
            }
            Expr::UnaryOp(node) => self.expression(&node.expr),
            Expr::BinOp(node) => {
                use BinOpKind::{Concat, Gt, Gte, Lt, Lte};
                if matches!(node.op, Concat | Gt | Gte | Lt | Lte) {
                    self.operand(&node.left);
                    self.operand(&node.right);
                }
                self.expression(&node.left);
                self.expression(&node.right);
            }
            Expr::Compare(node) => {
                let orders = |op: &CompareOpKind| {
                    use CompareOpKind::{Gt, Gte, Lt, Lte};
                    matches!(op, Gt | Gte | Lt | Lte)
                };
                if node.ops.iter().any(|op| orders(&op.op)) {
                    self.operand(&node.expr);
                    node.ops.iter().for_each(|op| self.operand(&op.expr));
                }
                self.expression(&node.expr);
                node.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(node) => {
                self.expression(&node.test_expr);
                self.expression(&node.true_expr);
                self.option(&node.false_expr);
            }
            Expr::Filter(node) => {
                self.usage.filters.push((node.name.to_string(), node.span()));
                self.usage.reshapes |= RESHAPING.contains(&node.name);
                self.option(&node.expr);
                self.arguments(&node.args);
            }
            Expr::Test(node) => {
                self.usage.tests.push((node.name.to_string(), node.span()));
                self.expression(&node.expr);
                self.arguments(&node.args);
            }
            Expr::GetAttr(node) => {
                self.row_column(&node.expr, node.name);
                self.expression(&node.expr);
            }
            Expr::GetItem(node) => {
                if let Some(name) = node.subscript_expr.as_const() {
                    self.row_column(&node.expr, name.as_str().unwrap_or_default());
                }
                self.expression(&node.expr);
                self.expression(&node.subscript_expr);
            }
            Expr::Call(node) => self.call(&node.expr, &node.args, node.span()),
            Expr::List(node) => node.items.iter().for_each(|item| self.expression(item)),
            Expr::Tuple(node) => node.items.iter().for_each(|item| self.expression(item)),
            Expr::Map(node) => {
                node.keys.iter().for_each(|key| self.expression(key));
                node.values.iter().for_each(|value| self.expression(value));
            }
        }
    }

    /// A column, or what is reached from one; the parser's spans give only the end of such a chain.
    fn operand(&mut self, node: &Expr<'a>) {
        let mut base = node;
        loop {
            base = match base {
                Expr::GetAttr(inner) => &inner.expr,
                Expr::GetItem(inner) => &inner.expr,
                Expr::Var(_) => break,
                _ => return,
            };
        }
        self.usage.operands.push(base.span().start_offset as usize..node.span().end_offset as usize);
    }

    fn row_column(&mut self, object: &Expr<'a>, name: &str) {
        if matches!(object, Expr::Var(var) if var.id == "row" && !self.is_own("row")) && !name.is_empty() {
            add(&mut self.usage.row_columns, name);
        }
    }
}
