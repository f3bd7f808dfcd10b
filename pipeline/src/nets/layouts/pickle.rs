//! Just enough of Python's pickle to list the tensors of a PyTorch checkpoint.
//!
//! Nothing is ever called: a global is remembered by name only, and what calling it would have
//! given is known for three functions of PyTorch and opaque for all others. Every value lives in
//! one arena, so depth costs no stack and size is bounded by [`MAX_VALUES`].

use std::collections::HashMap;

use candle_core::DType;

/// Most values one pickle may make; SD1.5's makes about thirty thousand.
const MAX_VALUES: usize = 2_000_000;

/// One tensor a pickle describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRecord {
    pub(super) name: String,
    /// Name of its storage's file in the archive.
    pub(super) storage: String,
    pub(super) dtype: DType,
    /// First element in the storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Int(i64),
    /// None, booleans, floats, bytes: nothing a tensor is described with.
    Plain,
    Node(usize),
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Tuple(Vec<Value>),
    List,
    Dict(Vec<(Value, Value)>),
    Global(String),
    Storage { key: String, dtype: DType },
    Tensor { storage: String, dtype: DType, offset: usize, shape: Vec<usize>, strides: Vec<usize> },
    Opaque,
}

type Outcome<T> = Result<T, String>;

struct Machine<'a> {
    input: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

/// The tensors of the dictionary a pickle makes, and of the one under its `state_dict`.
///
/// # Errors
/// What is malformed or unknown, for a message.
pub(super) fn tensors(pickle: &[u8]) -> Outcome<Vec<TensorRecord>> {
    let mut machine = Machine {
        input: pickle,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let top = machine.run()?;
    let Some(entries) = machine.dict(top) else {
        return Err("its pickle makes no dictionary of tensors".to_owned());
    };
    let nested = entries.iter().find(|(key, _)| machine.text(*key) == Some("state_dict"));
    let entries = nested.and_then(|(_, value)| machine.dict(*value)).unwrap_or(entries);
    let record = |(key, value): &(Value, Value)| {
        let Value::Node(index) = value else { return None };
        match machine.nodes.get(*index)? {
            Node::Tensor { storage, dtype, offset, shape, strides } => Some(TensorRecord {
                name: machine.text(*key)?.to_owned(),
                storage: storage.clone(),
                dtype: *dtype,
                offset: *offset,
                shape: shape.clone(),
                strides: strides.clone(),
            }),
            _ => None,
        }
    };
    Ok(entries.iter().filter_map(record).collect())
}

impl Machine<'_> {
    fn run(&mut self) -> Outcome<Value> {
        loop {
            let code = self.byte()?;
            match code {
                b'.' => return self.pop(),
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Plain),
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Plain);
                }
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let value = self.number(4)? as u32;
                    self.stack.push(Value::Int(i64::from(value as i32)));
                }
                0x8a => self.long()?,
                b'X' => self.string(4)?,
                0x8c => self.string(1)?,
                b'B' | b'T' => self.bytes(4)?,
                b'C' | b'U' => self.bytes(1)?,
                b'c' => {
                    let name = format!("{}.{}", self.line()?, self.line()?);
                    self.push(Node::Global(name))?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (name, module) = (self.text(name), self.text(module));
                    let name = format!("{}.{}", module.unwrap_or_default(), name.unwrap_or_default());
                    self.push(Node::Global(name))?;
                }
                b')' => self.push(Node::Tuple(Vec::new()))?,
                b']' => self.push(Node::List)?,
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Node::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let start = self.stack.len().checked_sub(count).ok_or("its pickle's stack runs empty")?;
                    let items = self.stack.split_off(start);
                    self.push(Node::Tuple(items))?;
                }
                b'l' => {
                    self.since_mark()?;
                    self.push(Node::List)?;
                }
                b'd' => {
                    let items = self.since_mark()?;
                    self.push(Node::Dict(pairs(&items)))?;
                }
                b'a' => drop(self.pop()?),
                b'e' => drop(self.since_mark()?),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.extend(&items)?;
                }
                // State given to an object that was not made: ignored.
                b'b' => drop(self.pop()?),
                b'R' | 0x81 => self.call()?,
                b'Q' => self.persistent()?,
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                0x94 => {
                    let index = self.memo.len() as u32;
                    let top = *self.stack.last().ok_or("its pickle's stack runs empty")?;
                    self.memo.insert(index, top);
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                other => {
                    return Err(format!(
                        "its pickle has the operation {other:#04x}, which no checkpoint needs"
                    ));
                }
            }
        }
    }

    /// What PyTorch's functions would make of their arguments.
    fn call(&mut self) -> Outcome<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let name = match function {
            Value::Node(index) => match self.nodes.get(index) {
                Some(Node::Global(name)) => name.clone(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        let arguments = self.tuple(arguments).map(<[Value]>::to_vec).unwrap_or_default();
        match name.as_str() {
            "collections.OrderedDict" => self.push(Node::Dict(Vec::new())),
            "torch._utils._rebuild_parameter" => {
                self.stack.push(*arguments.first().ok_or("its pickle has a parameter without data")?);
                Ok(())
            }
            "torch._utils._rebuild_tensor_v2" => {
                let node = self
                    .tensor(&arguments)
                    .ok_or("its pickle has a tensor without storage, size or strides")?;
                self.push(node)
            }
            _ => self.push(Node::Opaque),
        }
    }

    fn tensor(&self, arguments: &[Value]) -> Option<Node> {
        let [Value::Node(storage), Value::Int(offset), size, strides, ..] = arguments else { return None };
        let Node::Storage { key, dtype } = self.nodes.get(*storage)? else { return None };
        let sizes = |value: &Value| -> Option<Vec<usize>> {
            let size =
                |value: &Value| if let Value::Int(n) = value { usize::try_from(*n).ok() } else { None };
            self.tuple(*value)?.iter().map(size).collect()
        };
        let (shape, strides) = (sizes(size)?, sizes(strides)?);
        let offset = usize::try_from(*offset).ok()?;
        (shape.len() == strides.len()).then(|| Node::Tensor {
            storage: key.clone(),
            dtype: *dtype,
            offset,
            shape,
            strides,
        })
    }

    /// `("storage", class, key, device, length)`.
    fn persistent(&mut self) -> Outcome<()> {
        let id = self.pop()?;
        let storage = self.tuple(id).and_then(|parts| {
            let [kind, Value::Node(class), key, ..] = parts else { return None };
            let Node::Global(class) = self.nodes.get(*class)? else { return None };
            let dtype = element_type(class)?;
            (self.text(*kind)? == "storage")
                .then(|| Node::Storage { key: self.text(*key).unwrap_or_default().to_owned(), dtype })
        });
        self.push(storage.unwrap_or(Node::Opaque))
    }

    fn push(&mut self, node: Node) -> Outcome<()> {
        if self.nodes.len() >= MAX_VALUES {
            return Err(format!("its pickle makes more than {MAX_VALUES} values"));
        }
        self.stack.push(Value::Node(self.nodes.len()));
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Outcome<Value> {
        self.stack.pop().ok_or_else(|| "its pickle's stack runs empty".to_owned())
    }

    fn since_mark(&mut self) -> Outcome<Vec<Value>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("its pickle has no mark where one is needed")?))
    }

    fn extend(&mut self, items: &[Value]) -> Outcome<()> {
        let top = *self.stack.last().ok_or("its pickle's stack runs empty")?;
        if let Value::Node(index) = top
            && let Some(Node::Dict(entries)) = self.nodes.get_mut(index)
        {
            entries.extend(pairs(items));
        }
        Ok(())
    }

    fn remember(&mut self, width: usize) -> Outcome<()> {
        let index = self.number(width)? as u32;
        let top = *self.stack.last().ok_or("its pickle's stack runs empty")?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Outcome<()> {
        let index = self.number(width)? as u32;
        let value = *self.memo.get(&index).ok_or("its pickle recalls what it never stored")?;
        self.stack.push(value);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Outcome<&[u8]> {
        let (head, rest) = self.input.split_at_checked(count).ok_or("its pickle ends early")?;
        self.input = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// Little-endian, `width` up to 8.
    fn number(&mut self, width: usize) -> Outcome<u64> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    }

    fn integer(&mut self, width: usize) -> Outcome<()> {
        let value = self.number(width)?;
        self.stack.push(Value::Int(value as i64));
        Ok(())
    }

    fn long(&mut self) -> Outcome<()> {
        let width = usize::from(self.byte()?);
        let bytes = self.take(width)?;
        if width > 8 {
            self.stack.push(Value::Plain);
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let start = if negative { -1i64 } else { 0 };
        let value = bytes.iter().rev().fold(start, |value, &byte| (value << 8) | i64::from(byte));
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn string(&mut self, width: usize) -> Outcome<()> {
        let length = self.number(width)? as usize;
        let text =
            std::str::from_utf8(self.take(length)?).map_err(|_| "its pickle has text that is not UTF-8")?;
        let node = Node::Text(text.to_owned());
        self.push(node)
    }

    fn bytes(&mut self, width: usize) -> Outcome<()> {
        let length = self.number(width)? as usize;
        self.take(length)?;
        self.stack.push(Value::Plain);
        Ok(())
    }

    fn line(&mut self) -> Outcome<String> {
        let end = self.input.iter().position(|&byte| byte == b'\n').ok_or("its pickle ends early")?;
        let line = String::from_utf8_lossy(self.take(end + 1)?).trim_end().to_owned();
        Ok(line)
    }

    fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Node(index) => match self.nodes.get(index)? {
                Node::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    fn tuple(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Node(index) => match self.nodes.get(index)? {
                Node::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Node(index) => match self.nodes.get(index)? {
                Node::Dict(entries) => Some(entries),
                _ => None,
            },
            _ => None,
        }
    }
}

fn pairs(items: &[Value]) -> Vec<(Value, Value)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn element_type(class: &str) -> Option<DType> {
    Some(match class {
        "torch.FloatStorage" => DType::F32,
        "torch.HalfStorage" => DType::F16,
        "torch.BFloat16Storage" => DType::BF16,
        "torch.DoubleStorage" => DType::F64,
        "torch.LongStorage" => DType::I64,
        "torch.ByteStorage" => DType::U8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_to_the_system_is_not_made() {
        let pickle = b"\x80\x02cos\nsystem\nX\x0f\x00\x00\x00touch /tmp/owned\x85R.";
        assert!(tensors(&[&pickle[..], b"."].concat()).is_err());
        let inside = b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\nX\x04\x00\x00\x00exit\x85Rs.";
        assert_eq!(tensors(inside).unwrap(), []);
    }

    #[test]
    fn deep_and_looping_values_cost_no_stack() {
        let mut deep = b"\x80\x02)".to_vec();
        deep.extend(std::iter::repeat_n(0x85, 1_000_000));
        deep.push(b'.');
        assert!(tensors(&deep).is_err());
        // A dictionary that holds itself.
        assert_eq!(tensors(b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.").unwrap(), []);
    }

    #[test]
    fn nonsense_is_refused() {
        let cases: [&[u8]; 7] =
            [b"", b"\x80", b".", b"t.", b"\x80\x02h\x05.", b"X\xff\xff\xff\xff", b"\x80\x02\xfe."];
        for case in cases {
            assert!(tensors(case).is_err(), "{case:?}");
        }
    }
}
