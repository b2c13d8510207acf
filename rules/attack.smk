"""An attacker who tunes. Writes work/<study>/attack/<task>/<arm>/seed<k>, its trials and answers in results, attack.csv."""

ATTACKED, TRIALS, ATTACK_TABLE = [], [], []

if S.study.attack:

    use rule respond as respond_aligned_validation with:
        input:
            model=f"{W}/{{rep}}aligned/model.safetensors",
            prompts=rules.prepare_prompts.output[0],
            tasks=[],
        output:
            f"{R}/{{rep}}models/aligned/validation/responses.parquet",
        log:
            f"{L}/{{rep}}respond/aligned-validation.log",
        params:
            cfg=S.generation_cfg([], "validation"),
            code=code("respond"),

    rule search_attack:
        """Tuning an attack on {wildcards.arm} on {wildcards.rep}{wildcards.task}, seed {wildcards.seed}"""
        input:
            unpack(attack_inputs),
            model=from_home("aligned"),
            task=rules.prepare_task.output[0],
            prompts=rules.prepare_prompts.output[0],
        output:
            model=f"{W}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}/model.safetensors",
            record=f"{R}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}/train.json",
            trials=f"{R}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}/trials.csv",
        log:
            f"{L}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}.log",
        threads: 1
        resources:
            **asks("attacks", mem_mb=8000, runtime=1440, gpu=GPU),
        params:
            cfg=lambda w: attacking.cfg(S, w.task, w.arm, int(w.seed), w.rep),
            code=lambda w: code(
                "attack", *attacking.files(S, w.arm), *scorers([w.task])
            ),
            kept=f"{W}/checkpoints/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}",
            imports=lambda w: list(S.arms[attacks.trained(S, w.arm)].imports),
        script:
            "../scripts/attack.py"

    use rule respond as respond_attacked with:
        input:
            model=rules.search_attack.output.model,
            prompts=rules.prepare_prompts.output[0],
            tasks=rules.prepare_task.output,
        output:
            f"{R}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}/responses.parquet",
        log:
            f"{L}/{{rep}}respond/attack/{{task}}/{{arm}}/seed{{seed}}.log",

    use rule judge as judge_attacked with:
        input:
            responses=rules.respond_attacked.output[0],
            prompts=rules.prepare_prompts.output[0],
            tasks=rules.prepare_task.output,
            record=rules.search_attack.output.record,
            opinions=lambda w: opinions_of(
                f"{w.rep}attack/{w.task}/{w.arm}/seed{w.seed}", w.task, w.arm
            ),
        output:
            verdicts=f"{R}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}/verdicts.parquet",
            metrics=f"{R}/{{rep}}attack/{{task}}/{{arm}}/seed{{seed}}/metrics.json",
        log:
            f"{L}/{{rep}}judge/attack/{{task}}/{{arm}}/seed{{seed}}.log",
        params:
            cfg=lambda w: S.judge_cfg(
                w.task,
                w.arm,
                int(w.seed),
                f"{W}/{w.rep}attack/{w.task}/{w.arm}/seed{w.seed}/model.safetensors",
                w.rep,
            ),
            code=lambda w: code("judge", *scorers([w.task]), *S.judging.files()),

    ATTACKED = [f"{R}/{place}/metrics.json" for place in attacks.places(S)]
    TRIALS = [f"{R}/{place}/trials.csv" for place in attacks.places(S)]
    UNTUNED = [
        f"{R}/{place}/metrics.json"
        for place in [
            *(f"{f}models/aligned" for f in S.homes("aligned")),
            *attacks.untuned(S),
        ]
    ]

    rule compare_attacks:
        """Comparing the attacks on {S.name}"""
        input:
            metrics=ATTACKED,
            verdicts=[
                m.replace("metrics.json", "verdicts.parquet")
                for m in [*ATTACKED, *UNTUNED]
            ],
            untuned=UNTUNED,
            trials=TRIALS,
        output:
            f"{R}/attack.csv",
        log:
            f"{L}/compare_attacks.log",
        localrule: True
        threads: 1
        resources:
            **asks(None, mem_mb=4000, runtime=60),
        params:
            cfg=attacking.table_cfg(S),
            code=code("compare_attacks"),
        script:
            "../scripts/compare_attacks.py"

    rule attack:
        """Every attack and its table"""
        input:
            rules.compare_attacks.output,

    ATTACK_TABLE = rules.compare_attacks.output
