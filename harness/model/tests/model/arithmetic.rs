//! Numbers and bodies against the recordings of llm-d-inference-sim v0.10.2 in echo mode.

use rstest::rstest;
use serde_json::{Value, json};
use verdict::history::Usage;
use wire::Call;

use crate::served::{answer_to, body, chat, chat_body, config, response, serve};

#[rstest]
#[case::hello(json!("Hello"), 6, 1, "Hello")]
#[case::hello_there_friend(json!("Hello there friend"), 8, 3, "Hello there friend")]
#[case::ten_words(json!("one two three four five six seven eight nine ten"), 15, 10, "one two three four five six seven eight nine ten")]
#[case::content_in_parts(json!([{"type": "text", "text": "Hello"}]), 6, 1, "Hello")]
#[case::letters_beyond_ascii_are_lost(json!("h\u{e9} llo"), 7, 2, "hllo")]
#[tokio::test]
async fn chats_count_as_recorded(
    #[case] content: Value,
    #[case] prompt_tokens: u64,
    #[case] completion_tokens: u64,
    #[case] echo: &str,
) {
    let served = serve(config()).await;
    let request = json!({"model": "mock-llm", "messages": [{"role": "user", "content": content}]});
    let exchange = served.send(Call::post("/v1/chat/completions").json(&request)).await;
    let reply = response(&exchange).json().expect("JSON");
    let usage = Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
    for (field, tokens) in [("prompt_tokens", prompt_tokens), ("completion_tokens", completion_tokens)] {
        assert_eq!(reply["usage"][field], tokens);
    }
    assert_eq!(reply["usage"]["total_tokens"], usage.total_tokens);
    assert_eq!(served.record(&exchange).usage, Some(usage));
    assert_eq!(reply["choices"][0]["message"]["content"], echo);
}

#[rstest]
#[case::hello("Hello", 1)]
#[case::question("What is the warmest city in the USA?", 9)]
#[tokio::test]
async fn completions_count_as_recorded(#[case] prompt: &str, #[case] tokens: u64) {
    let served = serve(config()).await;
    let exchange =
        served.send(Call::post("/v1/completions").json(&json!({"model": "mock-llm", "prompt": prompt}))).await;
    let usage = served.record(&exchange).usage.expect("usage");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (tokens, tokens, 2 * tokens));
}

#[rstest]
#[case::chat(
    "/v1/chat/completions",
    json!({"messages": [{"role": "user", "content": "Hello"}]}),
    r#"{"id":"chatcmpl-ID","model":"mock-llm","object":"chat.completion","created":0,"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Hello"}}]}"#
)]
#[case::most_tokens_name_the_reason_and_cut_nothing(
    "/v1/chat/completions",
    json!({"max_tokens": 1, "messages": [{"role": "user", "content": "Hello there friend"}]}),
    r#"{"id":"chatcmpl-ID","model":"mock-llm","object":"chat.completion","created":0,"usage":{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":"length","message":{"role":"assistant","content":"Hello there friend"}}]}"#
)]
#[case::completions(
    "/v1/completions",
    json!({"prompt": "Hello"}),
    r#"{"id":"cmpl-ID-0","model":"mock-llm","object":"text_completion","created":0,"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":"stop","text":"Hello"}]}"#
)]
#[case::responses(
    "/v1/responses",
    json!({"input": "Hello"}),
    r#"{"id":"resp_ID","model":"mock-llm","object":"response","created_at":0,"status":"completed","output":[{"type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hello"}]}],"text":{"format":{"type":"text"}},"usage":{"input_tokens":6,"output_tokens":1,"total_tokens":7}}"#
)]
#[tokio::test]
async fn bodies_are_byte_by_byte_as_recorded(
    #[case] path: &str,
    #[case] mut request: Value,
    #[case] recorded: &str,
    #[values("", "/openai")] prefix: &str,
) {
    request["model"] = json!("mock-llm");
    let exchange = answer_to(Call::post(&format!("{prefix}{path}")).json(&request)).await;
    assert_eq!((exchange.status(), body(&exchange).as_str()), (Some(200), recorded));
    let response = response(&exchange);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("server"), Some("fasthttp"));
    assert_eq!(response.header("x-inference-pod"), Some("mock-llm-0"));
    assert_eq!(response.header("x-inference-port"), Some("8080"));
    assert_eq!(response.header("x-inference-namespace"), Some("lab"));
    assert_eq!(response.header("content-length"), Some(response.body.bytes.to_string().as_str()));
}

#[tokio::test]
async fn an_embedding_is_as_recorded() {
    let exchange = answer_to(Call::post("/v1/embeddings").json(&json!({"model": "mock-llm", "input": "Hello"}))).await;
    let text = body(&exchange);
    assert_eq!(text.len(), 4_362, "the recorded length");
    let begin = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[-0.35351562,-0.4140625,"#;
    let end = r#",-0.4140625]}],"model":"mock-llm","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    assert!(text.starts_with(begin) && text.ends_with(end), "{text}");
}

#[rstest]
#[case::unknown_model(
    Call::post("/v1/chat/completions").json(&json!({"model": "nope", "messages": []})),
    404,
    r#"{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}}"#
)]
#[case::cut_json(
    Call::post("/v1/chat/completions").body("{\"model\":", "application/json"),
    400,
    r#"{"error":{"message":"Failed to read and parse request body, unexpected end of JSON input","type":"BadRequestError","param":null,"code":400}}"#
)]
#[case::return_error_429(
    chat("Hello").header("X-Return-Error", "429"),
    429,
    r#"{"error":{"message":"Simulated error triggered by X-Return-Error header (code 429)","type":"RateLimitError","param":null,"code":429}}"#
)]
#[case::return_error_503(
    chat("Hello").header("X-Return-Error", "503"),
    503,
    r#"{"error":{"message":"Simulated error triggered by X-Return-Error header (code 503)","type":"InternalServerError","param":null,"code":503}}"#
)]
#[case::unknown_path(Call::get("/nope"), 404, "Not Found")]
#[case::wrong_method(Call::get("/v1/chat/completions"), 405, "Method Not Allowed")]
#[tokio::test]
async fn errors_are_byte_by_byte_as_recorded(#[case] call: Call, #[case] status: u16, #[case] recorded: &str) {
    let exchange = answer_to(call).await;
    assert_eq!((exchange.status(), response(&exchange).body.text.as_deref()), (Some(status), Some(recorded)));
    let response = response(&exchange);
    assert_eq!(response.header("x-inference-pod"), None, "an error at the door names no pod");
    let content_type = if recorded.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    assert_eq!(response.header("content-type"), Some(content_type));
    let allow = (status == 405).then_some("POST, OPTIONS");
    assert_eq!(response.header("allow"), allow);
}

#[tokio::test]
async fn a_prompt_of_34_kb_is_too_long_as_recorded() {
    let exchange = answer_to(chat(&"word ".repeat(6_800))).await;
    let recorded = "{\"error\":{\"message\":\"This model's maximum context length is 1024 tokens. However, you requested 6805 tokens (6805 in the messages, 0 in the completion). Please reduce the length of the messages or completion\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}";
    assert_eq!((exchange.status(), response(&exchange).body.text.as_deref()), (Some(400), Some(recorded)));
    assert_eq!(response(&exchange).header("x-inference-pod"), Some("mock-llm-0"), "the pod refused it");
}

#[tokio::test]
async fn the_list_of_models_is_as_recorded() {
    let served = serve(config()).await;
    for path in ["/v1/models", "/openai/v1/models"] {
        let exchange = served.send(Call::get(path)).await;
        let recorded = r#"{"object":"list","data":[{"id":"mock-llm","object":"model","created":0,"owned_by":"vllm","root":"mock-llm","parent":null,"max_model_len":1024}]}"#;
        assert_eq!(body(&exchange), recorded);
        assert_eq!(response(&exchange).header("x-inference-pod"), None);
    }
}

#[rstest]
#[case::two_messages(json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]), 14, json!("Hello"))]
#[case::no_messages(json!([]), 0, Value::Null)]
#[tokio::test]
async fn the_last_message_is_echoed(#[case] messages: Value, #[case] prompt_tokens: u64, #[case] echo: Value) {
    let request = json!({"model": "mock-llm", "messages": messages});
    let reply = response(&answer_to(Call::post("/v1/chat/completions").json(&request)).await).json().expect("JSON");
    assert_eq!(reply["usage"]["prompt_tokens"], prompt_tokens);
    assert_eq!(reply["choices"][0]["message"]["content"], echo);
}

#[rstest]
#[case::several(json!(["Hello", "Hello there"]), 3, &["Hello", "Hello there"])]
#[case::token_numbers(json!([5, 6, 7]), 3, &["5,6,7"])]
#[tokio::test]
async fn prompts_may_be_lists(#[case] prompt: Value, #[case] tokens: u64, #[case] texts: &[&str]) {
    let exchange = answer_to(Call::post("/v1/completions").json(&json!({"model": "mock-llm", "prompt": prompt}))).await;
    let reply = response(&exchange).json().expect("JSON");
    assert_eq!(reply["usage"]["total_tokens"], 2 * tokens);
    let said: Vec<_> =
        reply["choices"].as_array().expect("choices").iter().map(|c| c["text"].as_str().expect("text")).collect();
    assert_eq!(said, texts);
}

#[rstest]
#[case::fits(1_018, 200)]
#[case::one_too_many(1_019, 400)]
#[case::none(0, 400)]
#[tokio::test]
async fn the_context_is_bounded(#[case] most: u64, #[case] status: u16) {
    let served = serve(config()).await;
    let mut request = chat_body("Hello");
    request["max_completion_tokens"] = json!(most);
    let exchange = served.send(Call::post("/v1/chat/completions").json(&request)).await;
    assert_eq!(exchange.status(), Some(status), "{:?}", response(&exchange).body.text);
}

#[rstest]
#[case::fewer_than_the_echo(2, "length")]
#[case::as_many(3, "length")]
#[case::more(4, "stop")]
#[tokio::test]
async fn the_reason_to_finish_is_length_from_the_last_token_on(#[case] most: u64, #[case] reason: &str) {
    let served = serve(config()).await;
    let mut request = chat_body("Hello there friend");
    request["max_tokens"] = json!(most);
    let exchange = served.send(Call::post("/v1/chat/completions").json(&request)).await;
    let choice = &response(&exchange).json().expect("JSON")["choices"][0];
    assert_eq!([&choice["finish_reason"], &choice["message"]["content"]], [reason, "Hello there friend"]);
}

#[rstest]
#[case("/health")]
#[case("/healthz")]
#[case("/ready")]
#[case("/health/ready")]
#[tokio::test]
async fn it_is_healthy(#[case] path: &str) {
    let served = serve(config()).await;
    assert_eq!(served.send(Call::get(path)).await.status(), Some(200));
}

#[tokio::test]
async fn the_gauges_have_the_names_of_vllm() {
    let served = serve(config()).await;
    let metrics = body(&served.send(Call::get("/metrics")).await);
    for gauge in ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"] {
        let said = format!("# TYPE {gauge} gauge\n{gauge}{{model_name=\"mock-llm\"}} 0\n");
        assert!(metrics.contains(&said), "{metrics}");
    }
}

#[tokio::test]
async fn chats_are_where_they_are_asked_to_be_and_nowhere_else() {
    let served = serve(model::Config { chat_path: Some("/llm/chat/completions".to_owned()), ..config() }).await;
    let request = json!({"model": "mock-llm", "messages": [{"role": "user", "content": "Hello"}]});
    for (path, status) in [("/llm/chat/completions", 200), ("/v1/chat/completions", 404), ("/llm/completions", 404)] {
        assert_eq!(served.send(Call::post(path).json(&request)).await.status(), Some(status), "{path}");
    }
}
