%%% What is taken out of a form, and when it counts. Mnesia is the real one, in memory.
-module(mod_dmuc_form_tests).

-include_lib("eunit/include/eunit.hrl").
-include("xmpp.hrl").

-define(ROOM, jid:make(<<"room">>, <<"conference.example">>)).
-define(OWNER, jid:make(<<"owner">>, <<"example">>, <<"r">>)).

all_test_() ->
    {setup, fun setup/0, fun(_) -> stopped = mnesia:stop() end,
     {foreach, fun empty/0,
      [fun what_is_said_counts_when_it_is_accepted/0,
       fun what_is_refused_does_not_count/0,
       fun no_other_answer_counts/0,
       fun other_fields_stay/0,
       fun what_is_no_boolean_is_refused/0,
       fun no_word_lasts_longer_than_its_room/0,
       fun without_a_table_nobody_has_said_anything/0]}}.

setup() ->
    {ok, _} = application:ensure_all_started(xmpp),
    ok = mod_dmuc_nif:check(),
    ok = mnesia:start().

empty() ->
    _ = mnesia:delete_table(dmuc_room),
    {atomic, ok} = mnesia:create_table(dmuc_room, [{attributes, [key, may_show_domains]}]).

field(Value) ->
    {Name, _} = mod_dmuc_nif:owner_field(),
    #xdata_field{var = Name, values = [Value]}.

form(Fields) ->
    #iq{type = set, id = <<"1">>, from = ?OWNER, to = ?ROOM, lang = <<"en">>,
        sub_els = [#muc_owner{config = #xdata{type = submit, fields = Fields}}]}.

answer(Type) ->
    #iq{type = Type, id = <<"1">>, from = ?ROOM, to = ?OWNER}.

say(Value) ->
    _ = mod_dmuc_form:muc_process_iq(form([field(Value)]), state),
    mod_dmuc_form:answered(?ROOM, answer(result)).

what_is_said_counts_when_it_is_accepted() ->
    _ = mod_dmuc_form:muc_process_iq(form([field(<<"1">>)]), state),
    ?assertNot(mod_dmuc_form:may_show_domains(?ROOM)),
    ?assertEqual({may_show_domains, true}, mod_dmuc_form:answered(?ROOM, answer(result))),
    ?assert(mod_dmuc_form:may_show_domains(?ROOM)),
    ?assertEqual(undefined, mod_dmuc_form:answered(?ROOM, answer(result))),
    ?assertEqual({may_show_domains, false}, say(<<"false">>)),
    ?assertNot(mod_dmuc_form:may_show_domains(?ROOM)).

what_is_refused_does_not_count() ->
    _ = mod_dmuc_form:muc_process_iq(form([field(<<"true">>)]), state),
    ?assertEqual(undefined, mod_dmuc_form:answered(?ROOM, answer(error))),
    ?assertEqual(undefined, mod_dmuc_form:answered(?ROOM, answer(result))),
    ?assertNot(mod_dmuc_form:may_show_domains(?ROOM)).

no_other_answer_counts() ->
    _ = mod_dmuc_form:muc_process_iq(form([field(<<"true">>)]), state),
    Others = [(answer(result))#iq{id = <<"2">>}, (answer(result))#iq{to = jid:make(<<"example">>)},
              answer(get)],
    [?assertEqual(undefined, mod_dmuc_form:answered(?ROOM, Other)) || Other <- Others],
    ?assertEqual({may_show_domains, true}, mod_dmuc_form:answered(?ROOM, answer(result))).

%% mod_muc refuses a form with a field that it does not know.
other_fields_stay() ->
    Other = #xdata_field{var = <<"muc#roomconfig_roomname">>, values = [<<"name">>]},
    Plain = form([Other]),
    ?assertEqual(Plain, mod_dmuc_form:muc_process_iq(form([field(<<"1">>), Other]), state)),
    ?assertEqual(Plain, mod_dmuc_form:muc_process_iq(Plain, state)),
    ?assertEqual(ignore, mod_dmuc_form:muc_process_iq(ignore, state)).

what_is_no_boolean_is_refused() ->
    Form = form([field(<<"perhaps">>)]),
    {stop, #iq{type = error}} = mod_dmuc_form:muc_process_iq(Form, state),
    ?assertEqual(undefined, mod_dmuc_form:answered(?ROOM, answer(result))).

no_word_lasts_longer_than_its_room() ->
    Gone = fun(End) ->
                   {may_show_domains, true} = say(<<"1">>),
                   ok = End(),
                   mod_dmuc_form:may_show_domains(?ROOM)
           end,
    #jid{luser = Name, lserver = Host} = ?ROOM,
    ?assertNot(Gone(fun() -> mod_dmuc_form:remove_room(<<"example">>, Name, Host) end)),
    ?assertNot(Gone(fun() -> mod_dmuc_form:room_destroyed(<<"example">>, Name, Host) end)),
    ?assertNot(Gone(fun() -> mod_dmuc_form:room_destroyed(<<"example">>, Name, Host, false) end)),
    ?assert(Gone(fun() -> mod_dmuc_form:room_destroyed(<<"example">>, Name, Host, true) end)).

without_a_table_nobody_has_said_anything() ->
    {atomic, ok} = mnesia:delete_table(dmuc_room),
    ?assertNot(mod_dmuc_form:may_show_domains(?ROOM)).
