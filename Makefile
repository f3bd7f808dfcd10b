# Two commands for a fresh machine: `make demo` and `make test`.

KINORA := target/release/kinora
DEMO   := workflows/single-click.kinora.json

.PHONY: demo test setup build lint fmt deny schema clean-out

demo: setup build
	@./scripts/demo.sh $(KINORA) $(DEMO)

test: test-setup fmt lint deny
	cargo nextest run --workspace --profile ci
	cargo test --workspace --doc --quiet

setup:
	@./scripts/setup.sh

test-setup:
	@./scripts/setup.sh --tests

build:
	cargo build --release --locked -p kinora

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny:
	cargo deny --log-level error check bans licenses sources

# Rewrites the committed JSON Schema after a change of the document types.
schema:
	cargo run --quiet -p kinora -- schema > pipeline/schema/kinora.schema.json

clean-out:
	rm -rf out workflows/out
